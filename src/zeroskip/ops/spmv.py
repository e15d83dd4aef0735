"""SpMV: y = activation(A @ x + bias), A sparse (M, K), x a vector (K,). SpMM with N = 1."""

from __future__ import annotations

from typing import Any

from ..formats import SparseMatrix
from ._check import check_activation, check_matrix, check_operand
from .plan import cached_plan


def spmv(a: SparseMatrix, x: Any, *, bias: Any = None, activation: str | None = None, kernel: str = "auto") -> Any:
    """Multiply a sparse matrix by a vector.

    Args:
        a: Sparse, (M, K).
        x: Dense, (K,); types as in `spmm`.
        bias: (M,).
        activation: As in `spmm`.
        kernel: As in `spmm`.
    Returns:
        Dense (M,), of the kind and dtype of `x`, accumulated in float32.
    Raises:
        ShapeError: If `x.shape != (K,)` or `bias.shape != (M,)`.
        KernelUnavailable: If the named kernel cannot run here; says why.
    """
    check_matrix("spmv", "a", a)
    operand = check_operand("spmv", "spmv", x, a.shape)
    check_activation("spmv", activation)
    return cached_plan("spmv", a, 1, kernel).run_checked(operand, x, bias, activation)
