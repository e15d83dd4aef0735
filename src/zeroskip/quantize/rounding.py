"""Weights rounded to nearest onto int8 or int4 codes, one scale for a row or for a group of its columns.

The scale of a group is the smallest float16 with which its largest stored weight still has a code, so that nothing
clips and each weight is off by at most half a scale. `search` gives up the largest weights of a group where a smaller
scale makes the squared error of the whole group smaller.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError, InvalidArgument
from ..formats import CODES, COO, INTEGERS, DenseMatrix, Scales, SparseMatrix, check_group, grid_shape

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

M = TypeVar("M", bound="SparseMatrix | DenseMatrix")

# Shares of a group's range that `search` tries. Random normal weights, symmetric int4: the squared error fell to 0.80,
# 0.75 and 0.53 of that without search (groups of 32, of 128, rows of 2048), with ratios of 0.75 to 1, 0.7 to 0.95 and
# 0.55 to 0.75; heavy tails (Student's t, 3 degrees) took rows down to 0.4. int8 gained nothing: its steps are small.
RATIOS = tuple(1.0 - 0.05 * step for step in range(1, 13))
_SLAB_ELEMS = 1 << 22
_LARGEST = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class _Settings:
    """How weights become codes; see `quantize`."""

    dtype: str
    group: int
    symmetric: bool
    search: bool


def quantize(a: M, dtype: str = "int8", *, group: int = 0, symmetric: bool = True, search: bool = False) -> M:
    """The same matrix in the same format, its values rounded to nearest onto codes with scales.

    Every stored entry stays stored, also where its code means 0. Rows and groups without entries get the scale 1.

    Args:
        a: A matrix of a floating value type, in any format or dense. Duplicates in COO are summed first.
        dtype: int8 (codes -127 to 127) or int4 (-8 to 7).
        group: Columns that share a scale: 32, 64 or 128; 0 for the whole row.
        symmetric: Whether 0 is the code 0. Otherwise each scale has a zero point, and the codes span the range from the
            smallest to the largest weight of the group, and 0.
        search: Whether to choose each scale for the smallest squared error, so that large weights may be clipped.
    Raises:
        DtypeError: If `dtype` is none of the two, or `a` holds codes already.
        InvalidArgument: If a weight is not finite or too large for a float16 scale, or `group` is no group size.
    """
    if not isinstance(a, SparseMatrix | DenseMatrix):
        raise InvalidArgument(
            f"quantize: a is a {type(a).__name__}, not a matrix; make one with zeroskip.formats.CSR.from_dense(a)."
        )
    if dtype not in INTEGERS:
        raise DtypeError(f"quantize: dtype is {dtype!r}, which has no scales; choose one of: {', '.join(INTEGERS)}.")
    if a.scales is not None:
        raise DtypeError(f"quantize: a is {a.dtype} already; pass zeroskip.quantize.dequantize(a).")
    settings = _Settings(dtype, check_group("quantize", group), bool(symmetric), bool(search))
    source: Any = a.coalesced() if isinstance(a, COO) else a
    grid = grid_shape(a.shape, settings.group)
    scales = np.ones(grid, dtype=np.float16)
    zeros = None if symmetric else np.zeros(grid, dtype=np.int8)
    codes = np.empty(source.data.shape, dtype=np.int8)
    slabs = list(_slabs(source, settings.group, grid[1]))
    for slab in slabs:
        _check_weights(slab, a.shape, settings)
    for slab in slabs:
        fitted = _fit(slab.weights, slab.cells, slab.count, settings)
        codes[slab.place] = fitted.codes(slab.weights, slab.cells).reshape(codes[slab.place].shape)
        scales[slab.rows] = fitted.scales.reshape(-1, grid[1])
        if zeros is not None:
            zeros[slab.rows] = fitted.zeros.reshape(-1, grid[1])
    found: M = replace(source, data=codes, dtype=dtype, scales=Scales(scales, settings.group, zeros))
    return found


def dequantize(a: M) -> M:
    """The same matrix in the same format with float32 values: what the codes of `a` mean, exactly."""
    found: Any = a.astype("float32")
    result: M = found
    return result


@dataclass(frozen=True)
class _Slab:
    """Some rows of a matrix: all of them if it is sparse, as many as fit a few buffers if it is dense.

    Attributes:
        rows: Which.
        place: Where their weights lie in `data`.
        weights: The weights, flat.
        cells: For each weight, which scale of these rows is its own.
        count: Scales of these rows.
    """

    rows: slice
    place: Any
    weights: Float32
    cells: Array
    count: int


def _slabs(a: Any, group: int, width: int) -> Iterator[_Slab]:
    rows, columns = a.shape
    if not isinstance(a, DenseMatrix):
        down, right = a.places()
        cells = down.astype(np.int64) * width + (right // group if group else 0)
        cells = np.broadcast_to(cells, a.data.shape).ravel()
        yield _Slab(slice(0, rows), ..., a.decoded().ravel(), cells, rows * width)
        return
    step = max(1, _SLAB_ELEMS // columns)
    weights = a.to_dense()
    across = np.arange(columns, dtype=np.int64) // group if group else np.zeros(columns, dtype=np.int64)
    for start in range(0, rows, step):
        part = weights[start : start + step]
        cells = np.arange(part.shape[0], dtype=np.int64)[:, None] * width + across
        taken = slice(start, start + part.shape[0])
        yield _Slab(taken, taken, part.ravel(), cells.ravel(), part.shape[0] * width)


def _check_weights(slab: _Slab, shape: tuple[int, int], settings: _Settings) -> None:
    """Refuse weights that no scale can hold, before anything is made of the others."""
    limit = _LARGEST * _steps(settings)
    wrong = ~(np.abs(slab.weights) <= (limit if settings.symmetric else limit / 2))
    if wrong.any():
        at = int(np.argmax(wrong))
        width = slab.count // (slab.rows.stop - slab.rows.start)
        row = slab.rows.start + int(slab.cells[at]) // width
        value, columns = slab.weights[at], ""
        if settings.group:
            first = int(slab.cells[at]) % width * settings.group
            columns = f" in columns {first} to {min(first + settings.group, shape[1]) - 1}"
        rule = f"its scale may exceed float16's {_LARGEST:.0f}" if np.isfinite(value) else "a weight must be finite"
        raise InvalidArgument(f"quantize: a holds {value} in row {row}{columns}, {rule}; mend the weights first.")


def _steps(settings: _Settings) -> int:
    """Distance of the codes that the range of a group is laid on."""
    low, high = CODES[settings.dtype]
    return high if settings.symmetric else high - low


@dataclass(frozen=True)
class _Fitted:
    """Scales and zero points of some rows, one a cell."""

    scales: npt.NDArray[np.float16]
    zeros: Codes
    settings: _Settings

    def codes(self, weights: Float32, cells: Array) -> Codes:
        """The nearest code of each weight. In float64, where the quotient never rounds onto a tie that it is not."""
        low, high = CODES[self.settings.dtype]
        found = np.empty(weights.shape, dtype=np.int8)
        for start in range(0, weights.size, _SLAB_ELEMS):
            part = slice(start, start + _SLAB_ELEMS)
            own = cells[part]
            steps = np.rint(weights[part] / self.scales[own].astype(np.float64))
            if not self.settings.symmetric:
                steps += self.zeros[own]
            found[part] = np.clip(steps, low, high)
        return found

    def squared_error(self, weights: Float32, cells: Array) -> Float64:
        """The sum of squared errors of each cell."""
        codes = self.codes(weights, cells)
        values = (codes.astype(np.float64) - self.zeros[cells]) * self.scales[cells].astype(np.float64)
        found: Float64 = np.bincount(cells, weights=(values - weights) ** 2, minlength=self.scales.size).astype(
            np.float64
        )
        return found


def _fit(weights: Float32, cells: Array, count: int, settings: _Settings) -> _Fitted:
    """The scales with which nothing clips, or with `search` those of least squared error."""
    low, high = np.zeros(count), np.zeros(count)
    np.maximum.at(high, cells, weights)
    np.minimum.at(low, cells, weights)
    best = _fit_range(low, high, settings)
    if not settings.search:
        return best
    least = best.squared_error(weights, cells)
    for ratio in RATIOS:
        trial = _fit_range(low * ratio, high * ratio, settings)
        error = trial.squared_error(weights, cells)
        better = error < least
        least = np.where(better, error, least)
        scales, zeros = np.where(better, trial.scales, best.scales), np.where(better, trial.zeros, best.zeros)
        best = _Fitted(scales, zeros, settings)
    return best


def _fit_range(low: Float64, high: Float64, settings: _Settings) -> _Fitted:
    """Scales and zero points for weights in [low, high], which holds 0."""
    span = np.maximum(-low, high) if settings.symmetric else high - low
    scales = _round_up(span / _steps(settings))
    zeros = np.zeros(span.shape, dtype=np.int8)
    if not settings.symmetric:
        first, last = CODES[settings.dtype]
        zeros = np.clip(np.rint(first - low / scales.astype(np.float64)), first, last).astype(np.int8)
    return _Fitted(scales, zeros, settings)


def _round_up(scales: Float64) -> npt.NDArray[np.float16]:
    """The nearest float16 that is not smaller, and 1 for 0."""
    found = scales.astype(np.float16)
    with np.errstate(over="ignore"):  # of the largest float16, whose neighbour is not taken
        above = np.nextafter(found, np.float16(np.inf))
    found = np.where(found.astype(np.float64) < scales, above, found)
    return np.where(scales > 0, found, np.float16(1)).astype(np.float16)
