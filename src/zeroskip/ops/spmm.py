"""SpMM: C = activation(A @ x + bias), A sparse (M, K), x dense (K, N)."""

from __future__ import annotations

from typing import Any

from ..formats import SparseMatrix
from ._check import check_activation, check_matrix, check_operand
from .plan import cached_plan


def spmm(a: SparseMatrix, x: Any, *, bias: Any = None, activation: str | None = None, kernel: str = "auto") -> Any:
    """Multiply a sparse matrix by a dense matrix.

    The first call with a matrix chooses a kernel and packs it, which takes a fraction of a second; the packed form
    lives as long as the matrix does. Use `plan` to decide when that happens.

    Args:
        a: Sparse, (M, K), any format and value type.
        x: Dense, (K, N), float32, bfloat16 or float16; NumPy, torch on the CPU or DLPack. Copied if not contiguous.
        bias: (M,), added to every column.
        activation: None, relu, gelu (the erf form), gelu_tanh, silu or tanh.
        kernel: A name from `zeroskip list kernels`, or "auto".
    Returns:
        Dense (M, N), of the kind and dtype of `x`, accumulated in float32.
    Raises:
        ShapeError: If `x.shape[0] != K` or `bias.shape != (M,)`.
        DtypeError: If x or bias are not of these types.
        KernelUnavailable: If the named kernel cannot run here; says why.
    """
    check_matrix("spmm", "a", a)
    operand = check_operand("spmm", "spmm", x, a.shape)
    check_activation("spmm", activation)
    return cached_plan("spmm", a, operand.shape[1], kernel).run_checked(operand, x, bias, activation)
