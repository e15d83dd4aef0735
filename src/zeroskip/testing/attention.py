"""The error bound of attention. It is derived from floating-point arithmetic and has nothing to tune.

For one query with N seen keys out of m, u = 2^-24, to first order at each step and made exact at the end:

**Scores.** q is scaled, or the sum is, which is one rounding; d products are added up. So a score s_j is off by at most
(d + 2) u scale |q| |k_j|; the one in d + 2 that is too many covers the higher orders. Let e be the largest of these.

**Weights.** The difference to the running maximum M is rounded, which is off by u |s_j - M|, and so is each difference
of two maxima when M grows. They add up to the range R = max s - min s at most: u R. Each exponential is off by a factor
within 1 + X u: X is 4, above the 1.35 of `vexp` and the one unit in the last place of other libraries. M grows at most
r times, where r = min(N, ceil(m / 64)) for a kernel that takes 64 keys or more at a time, and each time the weight is
multiplied: (X + 1) u. In all a weight is off by a factor within exp(E),

    E = e + u R + (r + 1) (X + 1) u.

A weight below 2^-125 may be taken as zero. The sum of weights is at least 1, so that costs N 2^-125 max|v| at most.

**Sums.** The sum of weights has N positive terms, hence N - 1 additions; the numerator N products and N additions; the
quotient is an inverse and a product. Both sums may be cut into ranges that are joined: one product and one addition
more a range, at most 64 ranges, the bound allows N + 68. As numerator and denominator are each off by a factor within
exp(E + (N + 68) u) in every term,

    |O - O64| <= (exp(2 E + (2 N + 136) u) - 1) (sum over j of w_j |v_j|) + N 2^-124 max|v| + u_out |O64|.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import UNIT_ROUNDOFF
from ..ops.attention_reference import Attended

_EXPONENTIAL = 4.0
_BLOCK_KEYS = 64
_RANGES = 64


def attention_error(found: Attended, d: int, keys: int, *, out_dtype: str = "float32") -> npt.NDArray[np.float64]:
    """How far a kernel may be from `found.out` in each element, (B, H, n, dv)."""
    u = UNIT_ROUNDOFF["float32"]
    with np.errstate(invalid="ignore", over="ignore"):
        grows = np.minimum(found.seen, -(-keys // _BLOCK_KEYS))
        weight = (d + 2) * u * found.products + u * found.range + (grows + 1) * (_EXPONENTIAL + 1) * u
        factor = np.expm1(2 * weight + (2 * found.seen + 2 * _RANGES + 8) * u)
        tiny = found.seen * 2.0**-124 * found.largest
        return np.asarray(
            factor[..., None] * found.magnitude + tiny[..., None] + UNIT_ROUNDOFF[out_dtype] * np.abs(found.out)
        )


def assert_attended(result: Any, found: Attended, d: int, keys: int, *, out_dtype: str = "float32") -> None:
    """Assert that `result` (B, H, n, dv) keeps the bound; where the reference is not finite, neither is the result."""
    result = np.asarray(result, dtype=np.float64)
    if result.shape != found.out.shape:
        raise AssertionError(f"the result has shape {result.shape}, not {found.out.shape}")
    allowed = attention_error(found, d, keys, out_dtype=out_dtype)
    with np.errstate(invalid="ignore"):
        within = np.abs(result - found.out) <= allowed
    wrong = ~np.where(np.isfinite(found.out), within, ~np.isfinite(result))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} elements are outside the error bound; the first is {list(at)}: "
            f"{result[at]!r}, expected {found.out[at]!r} within {allowed[at]:.3g}"
        )
