"""The error bound that every kernel must keep. It is derived from floating-point arithmetic and has nothing to tune.

A row of C is a sum of `nnz_row` products, and of a bias where there is one: t terms. Every product is rounded once and
meets at most t - 1 additions, in whatever order, so each term is off by a factor within (1 + u)^t, and to first order

    |C - C64| <= (t + 1) u_acc (|A| |x| + |bias|) + u_out |C64|.

The one in t + 1 covers the higher orders. A fused multiply-add rounds less often. Terms that are zero add no error, so
that the bound holds for dense kernels and padded formats too. Where results are subnormal each of the operations may
also be off by half of the smallest subnormal, 2^-150.

An activation f of Lipschitz constant L turns an error e of its input into at most L e. L is the largest slope of f:
1 for relu (and none) and tanh; 1.129 for gelu, at x = sqrt(2); 1.130 for its tanh form; 1.100 for silu. Evaluating f in
float32 adds its own error. gelu is x/2 (1 + erf(x/sqrt 2)): with erf within 4 u of the truth, 2 u |t erf'(t)| < u from
rounding its argument t and at most 2 u from the sum, the bracket is off by at most 7 u, the result by 7/2 u |x|, and
two products add 2 u |f|. The tanh form and silu (x times a sigmoid) go the same way with argument errors of up to 4 u.
All stay below 8 u |x|, the allowance here; tanh itself is allowed 8 u |f|, relu nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import UNIT_ROUNDOFF, SparseMatrix, to_numpy
from ..ops import reference

Float64 = npt.NDArray[np.float64]

LIPSCHITZ = {None: 1.0, "relu": 1.0, "tanh": 1.0, "gelu": 1.1290, "gelu_tanh": 1.1300, "silu": 1.0999}
EVALUATION = 8.0
_HALF_SUBNORMAL = 2.0**-150


@dataclass(frozen=True)
class Bound:
    """The float64 result (M, N) before and after the activation, and how far a kernel may be from it in each element.

    Where x makes `product` NaN or infinite, `allowed` does not matter: `assert_close` has its own rules there.
    """

    product: Float64
    expected: Float64
    allowed: Float64

    def columns(self, n: int) -> Bound:
        """The bound of the first `n` columns of x alone."""
        return Bound(self.product[:, :n], self.expected[:, :n], self.allowed[:, :n])


def bound(
    a: SparseMatrix,
    x: Any,
    *,
    bias: Any = None,
    activation: str | None = None,
    out_dtype: str = "float32",
    acc_dtype: str = "float32",
) -> Bound:
    """The result of activation(A @ x + bias) and the error that is allowed in each element.

    Args:
        a: The matrix with its values already rounded as the kernel stores them.
        x: (K, N).
        bias: (M,).
        activation: As in `ops.spmm`.
        out_dtype: Value type of the result.
        acc_dtype: Value type of the sums.
    """
    product = reference.stored_product(a, x)
    magnitude = reference.stored_product(a, x, absolute=True)
    terms = np.bincount(a.entries().rows, minlength=a.shape[0]).astype(np.float64)[:, None]
    if bias is not None:
        column = np.asarray(bias, dtype=np.float64)[:, None]
        product, magnitude, terms = product + column, magnitude + np.abs(column), terms + 1
    u_acc = UNIT_ROUNDOFF[acc_dtype]
    expected = reference.activate(product, activation)
    with np.errstate(invalid="ignore"):
        allowed = (terms + 1) * (u_acc * magnitude + _HALF_SUBNORMAL) * LIPSCHITZ[activation]
        if activation in ("gelu", "gelu_tanh", "silu"):
            allowed += EVALUATION * u_acc * np.abs(product)
        elif activation == "tanh":
            allowed += EVALUATION * u_acc * np.abs(expected)
        allowed += UNIT_ROUNDOFF[out_dtype] * np.abs(expected)
    return Bound(product, expected, allowed)


def assert_within_bound(
    c: Any,
    a: SparseMatrix,
    x: Any,
    *,
    bias: Any = None,
    activation: str | None = None,
    transposed: bool = False,
    out_dtype: str = "float32",
    acc_dtype: str = "float32",
) -> None:
    """Assert that `c` is activation(A @ x + bias) within the bound; NaN and infinities in x as `assert_close` has them.

    Args:
        c: The result: (M, N), or (N, M) if transposed.
        a: As in `bound`. For a dense kernel and an x that is not finite: a matrix that stores every element.
        x: (K, N), or (N, K) if transposed.
        bias: As in `bound`.
        activation: As in `bound`.
        transposed: Whether vectors lie in rows of c and x.
        out_dtype: As in `bound`.
        acc_dtype: As in `bound`.
    """
    found = to_numpy("assert_within_bound", "c", c)
    dense = to_numpy("assert_within_bound", "x", x)
    if transposed:
        found, dense = found.T, dense.T
    limits = bound(a, dense, bias=bias, activation=activation, out_dtype=out_dtype, acc_dtype=acc_dtype)
    assert_close(found, limits, activation)


def assert_close(found: Any, limits: Bound, activation: str | None = None) -> None:
    """Assert that `found` (M, N) keeps a bound.

    Where the product is NaN the result is NaN. Where it is infinite the result is the activation's limit; behind gelu
    and silu it may also be NaN, which their formulas give.
    """
    expected = limits.expected
    found = np.asarray(found, dtype=np.float64)
    if found.shape != expected.shape:
        raise AssertionError(f"the result has shape {found.shape}, not {expected.shape}")
    product, formula = limits.product, activation in ("gelu", "gelu_tanh", "silu")
    limit = np.where(formula, np.maximum(product, 0.0), expected)
    with np.errstate(invalid="ignore"):
        at_infinity = (found == limit) | (np.isnan(found) & formula)
        # Not the negation of `>`: a NaN where a number belongs is a failure.
        within = np.abs(found - expected) <= limits.allowed
    wrong = ~np.where(np.isfinite(product), within, np.where(np.isnan(product), np.isnan(found), at_infinity))
    if wrong.any():
        row, column = (int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} elements are outside the error bound; the first is [{row}, {column}]: "
            f"{found[row, column]!r}, expected {expected[row, column]!r} within {limits.allowed[row, column]:.3g}"
        )
