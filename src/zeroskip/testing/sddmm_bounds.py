"""Error bounds of SDDMM and masked softmax. They are derived from floating-point arithmetic; nothing is tuned.

**SDDMM.** An entry is a sum of K products, each rounded once, in whatever order: off by (K + 1) u |A| |B| to first
order, as in `bounds`. Multiplying by alpha and by the pattern's value are two roundings more, each of a number that is
at most |A| |B| times the factor: (K + 3) u |alpha v| |A| |B|. Where a number is subnormal, each of these operations may
be off by half of the smallest subnormal, 2^-150, which the factors multiply. alpha and s count as they are in float32.
bfloat16 operands are taken as they are: float32 holds them, and their products.

**Masked softmax.** The exponent x = s S + b is rounded at most twice, x - m once: e = 2 u (|s S| + |b|) + u |x - m|.
The rounding of m itself cancels: the same m is subtracted everywhere. With computed exponents x + d, |d| <= e,

    P' = e^(x_i + d_i) / sum of e^(x_j + d_j),    P'/P <= e^(e_i) / sum of P_j e^(-e_j) <= e^(e_i + sum of P_j e_j),

the last by Jensen's inequality, and the other way to first order. Beside that, an exponential is off by EXP u, at most
(measured over the whole range; `vecmath.inl`), twice; the sum of n positive terms by n u; its inverse and the product
by u each. What is below 2^-125 may be taken as zero, in a sum that is at least 1 up to its rounding.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..formats import UNIT_ROUNDOFF, SparseMatrix
from ..ops import sddmm_reference as reference
from .bounds import Bound

_U = UNIT_ROUNDOFF["float32"]
_HALF_SUBNORMAL = 2.0**-150
_FLUSHED = 2.0**-125
EXP = 2.0


def sddmm_bound(pattern: SparseMatrix, a: Any, b: Any, *, scale_values: bool = False, alpha: float = 1.0) -> Bound:
    """S and the error that is allowed in each value, as (batches, nnz).

    Args:
        pattern: The pattern.
        a: (..., M, K), as it was given, in a type that NumPy knows.
        b: (..., K, N).
        scale_values: As in `ops.sddmm`.
        alpha: As in `ops.sddmm`.
    """
    alpha = float(np.float32(alpha))
    settings: dict[str, Any] = {"scale_values": scale_values, "alpha": alpha}
    expected = _flat(reference.sddmm(pattern, a, b, **settings), pattern)
    magnitude = _flat(reference.sddmm(pattern, a, b, absolute=True, **settings), pattern)
    roundings = np.asarray(a).shape[-1] + 3
    factor = max(1.0, abs(alpha)) * (np.maximum(1.0, np.abs(pattern.decoded().reshape(-1))) if scale_values else 1.0)
    with np.errstate(invalid="ignore"):
        return Bound(expected, expected, roundings * (_U * magnitude + _HALF_SUBNORMAL * factor))


def softmax_bound(pattern: SparseMatrix, scores: Any, *, scale: float = 1.0, bias: Any = None) -> Bound:
    """The weights and the error that is allowed in each, as (batches, nnz)."""
    given, scale = np.asarray(scores, dtype=np.float64), float(np.float32(scale))
    added = np.float64(0.0) if bias is None else np.asarray(bias, dtype=np.float64)
    expected = reference.masked_softmax(pattern, given, scale=scale, bias=bias)
    entries = reference.row_sums(pattern, np.ones(given.shape))
    with np.errstate(invalid="ignore", over="ignore"):
        exponents = given * scale + added
        below = np.abs(exponents - reference.largest(pattern, exponents))
        off = _U * (2.0 * (np.abs(given * scale) + np.abs(added)) + below)
        off = np.where(expected == 0.0, 0.0, off)
        share = off + reference.row_sums(pattern, expected * off) + _U * (entries + 2.0 * EXP + 4.0)
        allowed = np.where(expected == 0.0, 0.0, expected * np.expm1(share)) + _FLUSHED
    return Bound(_flat(expected, pattern), _flat(expected, pattern), _flat(allowed, pattern))


def _flat(values: Any, pattern: SparseMatrix) -> Any:
    return values.reshape(int(np.prod(values.shape[:-1])), pattern.nnz)
