"""Linear: y = activation(x @ W.T + bias), W sparse (M, K), x dense (..., K): a torch Linear with a sparse weight."""

from __future__ import annotations

from typing import Any

from ..formats import SparseMatrix
from ._check import check_activation, check_matrix, check_operand
from .plan import cached_plan


def linear(x: Any, w: SparseMatrix, *, bias: Any = None, activation: str | None = None, kernel: str = "auto") -> Any:
    """Apply a sparse linear layer.

    Args:
        x: Dense, (..., K), one vector a row; types as in `spmm`.
        w: Sparse weight, (M, K) = (out_features, in_features).
        bias: (M,).
        activation: As in `spmm`.
        kernel: As in `spmm`.
    Returns:
        Dense (..., M), of the kind and dtype of `x`, accumulated in float32.
    Raises:
        ShapeError: If `x.shape[-1] != K` or `bias.shape != (M,)`.
        KernelUnavailable: If the named kernel cannot run here; says why.
    """
    check_matrix("linear", "w", w)
    operand = check_operand("linear", "linear", x, w.shape)
    check_activation("linear", activation)
    found = cached_plan("linear", w, operand.size // w.shape[1], kernel)
    return found.run_checked(operand, x, bias, activation)
