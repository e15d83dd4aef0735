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

**Quantised weights** (int8, int4) are A's own dequantised values, which float32 holds exactly. A kernel may scale each
value, or a group's sum of products with codes, which is one rounding more: t + 1 terms.

**Integer kernels** (`x_dtype="int8"`) round x as well, each column (each token) by itself: m = max|x|, sx = m / 127 and
the code q = rint(x / sx). Products of codes, less the zero point, are summed exactly in int32 within a scale group; the
sums are scaled by the group's scale and by sx and added up in float32.

Rounding x: sx is off by a factor 1 + d, |d| <= u. The quotient y = 127 x / m, |y| <= 127, goes through at most three
roundings (sx, its inverse, the product): |y' - y| <= 3 u 127 = 381 u, and |q - y'| <= 1/2. Then q sx is off from x by

    |q sx - x| <= |q - y| m/127 + |q| u m/127 <= m/127 (1/2 + 381 u + 127 u),

and C, to first order, by that times the row sum of |A|. Here 640 u stand for 508 u and the higher orders. Where sx
would be subnormal (m < 2^-119) a kernel may take the column as zero, which is off by at most m.

Summing: the G groups, and a bias, are t terms. Each is an exact integer that is rounded to float32, multiplied by two
scales and meets at most t - 1 additions: t + 2 roundings, of terms of |A| |q sx| together. To first order, all in all,

    |C - C64| <= e |A| 1 + (t + 3) u (|A| |x| + e |A| 1 + |bias|) + u_out |C64|,     e = m/127 (1/2 + 640 u).

A scale times sx below 2^-126 may be off by 2^-150, which the integer, at most 127 * 254 an entry, multiplies.

That is what a caller is promised. It is also so wide that a lost product hides in it, so with `rounded_x` the result is
compared with the product of the rounded x. y' and y round to different codes only where y lies within 4 u |y| of the
middle of two (3 u, and the higher orders); such elements may be off by a whole sx. What is left is the sum, and one
more rounding for sx:

    |C - A (q sx)| <= sx sum of |A| over such elements + (t + 4) u (|A| |q sx| + |bias|) + u_out |C|.

A column of x with a NaN or an infinity has no scale: all its results are NaN, also those of empty rows.

**Kernels in fixed point** (`x_dtype="int16"`) have x as codes q = rint(x / sx) with sx = m / 32767, and the n weights
that a row stores in a block of at most 256 columns as w' = rint(w / sw) with sw = L / (32767 - n), L the sum of their
magnitudes. A product is (q w' + 2^14) >> 15: off by half a unit of 32768 sw sx at most. Rounding a weight costs sw / 2
times |x| <= m, so another half for each; rounding x costs sx (1/2 + 640 u 32767/127) L, half a unit and a little. All
in all a block is off by

    (n + 0.6) 32768 sw sx = (n + 0.6) 32768 / (32767 (32767 - n)) L m,

where n <= min(256, nnz_row), and the L of a row's blocks add to its sum of |A|. The sums of the blocks, and a bias, are
t terms in float32, scaled twice: (t + 3) u of their magnitude, as for integers. Where sw or sx would be below 2^-110
the weights of the block, or the column, count as zero. A column with a NaN or an infinity gives NaN everywhere.

**Kernels in bfloat16** (`x_dtype="bfloat16"`) round x to 8 significant bits, to nearest, ties to even: r = x (1 + d)
with |d| <= v = 2^-8. An x that would become infinite stays as it is, and so do infinities and NaN. Products of two
bfloat16 have 16 bits, so float32 holds them; they are added in some order as above, in t terms of |A| |r| together:

    |C - C64| <= v |A| |x| + (t + 1) u ((1 + v) |A| |x| + |bias|) + u_out |C64|.

These kernels may take what is subnormal, below f = 2^-126 in magnitude, as zero: an x, which costs f |A|; a weight, at
most f |x| an entry; and a product or a sum, f for each of the 2 t + 1 operations. All of it is added to the above.

With `rounded_x` the result is compared with the product of r, and v is 0: rounding to nearest leaves no doubt.

**Products that are rounded** to a narrower type (`sum_dtype`) before bias and activation, as libraries do whose results
have that type, are off by its u of the product and of its error, and by half of its smallest subnormal; a bias then
meets one more rounding of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from ..formats import UNIT_ROUNDOFF, SparseMatrix, to_numpy
from ..formats._dtypes import to_bits, to_float32
from ..kernels import X_DTYPES, Kernel, rounds_x_to
from ..ops import reference

Float64 = npt.NDArray[np.float64]
Product = Callable[..., Float64]

LIPSCHITZ = {None: 1.0, "relu": 1.0, "tanh": 1.0, "gelu": 1.1290, "gelu_tanh": 1.1300, "silu": 1.0999}
EVALUATION = 8.0
_HALF_SUBNORMAL = 2.0**-150
_HALF_SUBNORMALS = {"bfloat16": 2.0**-134, "float16": 2.0**-25}
_TINY = 2.0**-119
_CODE_PRODUCT = 127 * 254
_FIXED_UNIT = 32767
_FIXED_COLUMNS = 256
_FIXED_TINY = 2.0**-110
_FLUSHED = 2.0**-126


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
    x_dtype: str = "float32",
    rounded_x: bool = False,
    sum_dtype: str = "float32",
    multiply: Product = reference.stored_product,
) -> Bound:
    """The result of activation(A @ x + bias) and the error that is allowed in each element.

    Args:
        a: The matrix with its values already rounded as the kernel stores them.
        x: (K, N).
        bias: (M,).
        activation: As in `ops.spmm`.
        out_dtype: Value type of the result.
        acc_dtype: Value type of the sums.
        x_dtype: float32; bfloat16 for a kernel that rounds x to it; int8 for one that rounds x to codes, a scale for
            each column; int16 for one in fixed point.
        rounded_x: Compare with the product of x as the kernel rounds it: finds errors that the rounding hides.
        sum_dtype: What a sum of products is rounded to before bias and activation.
        multiply: The product in float64, as `reference.stored_product`, by another way.
    """
    if x_dtype not in X_DTYPES or (x_dtype == "int8" and a.scales is None):
        raise InvalidArgument(
            f"bound: x_dtype is {x_dtype!r} and a is {a.dtype}, x is float32, int16, bfloat16 or, where a is int8 or "
            "int4, int8; choose one of these."
        )
    column = None if bias is None else np.asarray(bias, dtype=np.float64)[:, None]
    added = column if sum_dtype == "float32" else None
    u_acc = UNIT_ROUNDOFF[acc_dtype]
    if x_dtype == "int8":
        product, error = _integer_sum(a, x, added, u_acc, rounded_x, multiply)
    elif x_dtype == "int16":
        product, error = _fixed_sum(a, x, added, u_acc, multiply)
    elif x_dtype == "bfloat16":
        product, error = _bfloat16_sum(a, x, added, u_acc, rounded_x, multiply)
    else:
        product, error = _sum(a, x, added, u_acc, multiply)
    if sum_dtype != "float32":
        product, error = _rounded_sum(product, error, column, u_acc, sum_dtype)
    expected = reference.activate(product, activation)
    with np.errstate(invalid="ignore"):
        allowed = error * LIPSCHITZ[activation]
        if activation in ("gelu", "gelu_tanh", "silu"):
            allowed += EVALUATION * u_acc * np.abs(product)
        elif activation == "tanh":
            allowed += EVALUATION * u_acc * np.abs(expected)
        allowed += UNIT_ROUNDOFF[out_dtype] * np.abs(expected)
    return Bound(product, expected, allowed)


def _sum(a: SparseMatrix, x: Any, bias: Float64 | None, u: float, multiply: Product) -> tuple[Float64, Float64]:
    """A @ x + bias in float64, and the error of a kernel that multiplies by x as it is."""
    product, magnitude = multiply(a, x), multiply(a, x, absolute=True)
    terms = _entries_a_row(a) + (0 if a.scales is None else 1)
    if bias is not None:
        product, magnitude, terms = product + bias, magnitude + np.abs(bias), terms + 1
    with np.errstate(invalid="ignore"):
        return product, (terms + 1) * (u * magnitude + _HALF_SUBNORMAL)


def _bfloat16_sum(
    a: SparseMatrix, x: Any, bias: Float64 | None, u: float, rounded_x: bool, multiply: Product
) -> tuple[Float64, Float64]:
    """A @ x + bias in float64, and the error of a kernel that rounds x to bfloat16."""
    given = np.asarray(x, dtype=np.float32)
    near = to_float32(to_bits(given, "bfloat16"), "bfloat16")
    rounded = np.where(np.isfinite(near), near, given).astype(np.float64)
    product, error = _sum(a, rounded, bias, u, multiply)
    if not rounded_x:
        product = multiply(a, given) + (0.0 if bias is None else bias)
    usable = np.where(np.isfinite(rounded), np.abs(rounded), 0.0)
    off = np.where(np.isfinite(rounded), _FLUSHED, 0.0)
    if not rounded_x:
        off += UNIT_ROUNDOFF["bfloat16"] * np.where(np.isfinite(given), np.abs(given.astype(np.float64)), 0.0)
    largest, entries = usable.max(axis=0, initial=0.0), _entries_a_row(a)
    flushed = _FLUSHED * (entries * largest + 2.0 * (entries + (bias is not None)) + 1.0)
    return product, error + multiply(a, off, absolute=True) + flushed


def _integer_sum(
    a: SparseMatrix, x: Any, bias: Float64 | None, u: float, rounded_x: bool, multiply: Product
) -> tuple[Float64, Float64]:
    """A @ x + bias in float64, and the error of a kernel that rounds x to int8."""
    assert a.scales is not None
    given = np.asarray(x, dtype=np.float64)
    largest = np.abs(given).max(axis=0)
    usable = np.isfinite(largest)
    given, largest = np.where(usable, given, 0.0), np.where(usable, largest, 0.0)
    step = largest / 127.0
    if rounded_x:
        quotient = np.divide(given, step, out=np.zeros_like(given), where=step > 0)
        codes = np.rint(quotient)
        unsure = np.abs(np.abs(quotient - np.trunc(quotient)) - 0.5) <= 4.0 * u * np.abs(quotient)
        source, off, more = codes * step, np.where(largest < _TINY, np.abs(given), unsure * step), 4
    else:
        share = np.where(largest < _TINY, largest, step * (0.5 + 640.0 * u))
        source, off, more = given, np.broadcast_to(share, given.shape), 3
    product = multiply(a, source)
    error = multiply(a, off, absolute=True)
    magnitude = multiply(a, source, absolute=True) + error
    terms = a.scales.values.shape[1]
    if bias is not None:
        product, magnitude, terms = product + bias, magnitude + np.abs(bias), terms + 1
    product[:, ~usable] = np.nan
    subnormal = _HALF_SUBNORMAL * (_CODE_PRODUCT * _entries_a_row(a) + terms + more)
    return product, error + (terms + more) * u * magnitude + subnormal


def _fixed_sum(a: SparseMatrix, x: Any, bias: Float64 | None, u: float, multiply: Product) -> tuple[Float64, Float64]:
    """A @ x + bias in float64, and the error of a kernel in fixed point."""
    given = np.asarray(x, dtype=np.float64)
    largest = np.abs(given).max(axis=0)
    usable = np.isfinite(largest)
    given, largest = np.where(usable, given, 0.0), np.where(usable, largest, 0.0)
    product = multiply(a, given)
    sizes = multiply(a, np.ones((a.shape[1], 1)), absolute=True)
    entries = np.minimum(_entries_a_row(a), _FIXED_COLUMNS)
    share = (entries + 0.6) * (_FIXED_UNIT + 1) / (_FIXED_UNIT * (_FIXED_UNIT - entries))
    blocks = -(-a.shape[1] // 64)
    zeroed = np.where(largest < _FIXED_UNIT * _FIXED_TINY, sizes * largest, 0.0)
    zeroed = zeroed + np.minimum(sizes, blocks * _FIXED_UNIT * _FIXED_TINY) * largest
    error = share * sizes * largest + zeroed
    magnitude, terms = sizes * largest + error, blocks
    if bias is not None:
        product, magnitude, terms = product + bias, magnitude + np.abs(bias), terms + 1
    product[:, ~usable] = np.nan
    return product, error + (terms + 3) * (u * magnitude + _HALF_SUBNORMAL)


def _rounded_sum(
    product: Float64, error: Float64, bias: Float64 | None, u: float, dtype: str
) -> tuple[Float64, Float64]:
    """A product and its error when it has been rounded to `dtype`, and a bias added in float32."""
    with np.errstate(invalid="ignore"):
        error = error + UNIT_ROUNDOFF[dtype] * (np.abs(product) + error) + _HALF_SUBNORMALS[dtype]
        if bias is not None:
            product = product + bias
            error = error + u * (np.abs(product) + error)
    return product, error


def _entries_a_row(a: SparseMatrix) -> Float64:
    return np.bincount(a.entries().rows, minlength=a.shape[0]).astype(np.float64)[:, None]


def sums_of(kernel: Kernel) -> dict[str, str]:
    """How a kernel adds up, as arguments of `bound`: what it rounds x to, and its sums."""
    return {"x_dtype": rounds_x_to(kernel), "sum_dtype": getattr(kernel, "sum_dtype", "float32")}


def assert_within_bound(
    c: Any,
    a: SparseMatrix,
    x: Any,
    *,
    bias: Any = None,
    activation: str | None = None,
    transposed: bool = False,
    **settings: Any,
) -> None:
    """Assert that `c` is activation(A @ x + bias) within the bound; NaN and infinities in x as `assert_close` has them.

    Args:
        c: The result: (M, N), or (N, M) if transposed.
        a: As in `bound`. For a dense kernel and an x that is not finite: a matrix that stores every element.
        x: (K, N), or (N, K) if transposed.
        bias: As in `bound`.
        activation: As in `bound`.
        transposed: Whether vectors lie in rows of c and x.
        settings: `out_dtype`, `acc_dtype`, `x_dtype`, `rounded_x` and `sum_dtype` of `bound`.
    """
    found = to_numpy("assert_within_bound", "c", c)
    dense = to_numpy("assert_within_bound", "x", x)
    if transposed:
        found, dense = found.T, dense.T
    limits = bound(a, dense, bias=bias, activation=activation, **settings)
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
