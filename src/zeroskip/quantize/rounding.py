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
Float16 = npt.NDArray[np.float16]
Float64 = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int8]

M = TypeVar("M", bound="SparseMatrix | DenseMatrix")

# Shares of a group's range that `search` tries. Random normal weights, symmetric int4: the squared error fell to 0.80,
# 0.75 and 0.53 of that without search (groups of 32, of 128, rows of 2048), with ratios of 0.75 to 1, 0.7 to 0.95 and
# 0.55 to 0.75; heavy tails (Student's t, 3 degrees) took rows down to 0.4. int8 gained nothing: its steps are small.
RATIOS = tuple(1.0 - 0.05 * step for step in range(1, 13))
_SLAB_ELEMS = 1 << 22
# Weights that are worked on at a time. Of 2^12 to 2^16 the most was fastest (Zen 3): calls cost more than cache misses.
_CHUNK_ELEMS = 1 << 16
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
        found_codes, found_scales, found_zeros = _fit(slab, settings)
        codes[slab.place] = found_codes.reshape(codes[slab.place].shape)
        scales[slab.rows] = found_scales.reshape(-1, grid[1])
        if zeros is not None:
            zeros[slab.rows] = found_zeros.reshape(-1, grid[1])
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

    Weights that share a scale, a run, follow each other once they are in `order`.

    Attributes:
        rows: Which.
        place: Where their weights lie in `data`.
        weights: The weights, flat, as they are stored.
        order: The weights run after run; None where they lie so.
        begins: Where each run begins.
        cells: Which scale of these rows each run is for. Scales without weights have no run.
        count: Scales of these rows.
    """

    rows: slice
    place: Any
    weights: Float32
    order: Array | None
    begins: Array
    cells: Array
    count: int


def _slabs(a: Any, group: int, width: int) -> Iterator[_Slab]:
    rows, columns = a.shape
    if not isinstance(a, DenseMatrix):
        down, right = a.places()
        cells = down.astype(np.int64) * width
        if group:
            cells = cells + (right >> (group.bit_length() - 1))  # groups are powers of two; a division takes longer
        cells = np.broadcast_to(cells, a.data.shape).ravel()
        order = np.argsort(cells, kind="stable") if (cells[1:] < cells[:-1]).any() else None
        cells = cells if order is None else cells[order]
        begins = np.flatnonzero(np.diff(cells, prepend=-1))
        yield _Slab(slice(0, rows), ..., a.decoded().ravel(), order, begins, cells[begins], rows * width)
        return
    step = max(1, _SLAB_ELEMS // columns)
    weights = a.to_dense()
    across = np.arange(0, columns, group or columns)
    for start in range(0, rows, step):
        part = weights[start : start + step]
        taken = slice(start, start + part.shape[0])
        begins = (np.arange(part.shape[0])[:, None] * columns + across).ravel()
        yield _Slab(taken, taken, part.ravel(), None, begins, np.arange(begins.size), begins.size)


def _check_weights(slab: _Slab, shape: tuple[int, int], settings: _Settings) -> None:
    """Refuse weights that no scale can hold, before anything is made of the others."""
    limit = _LARGEST * _steps(settings)
    wrong = ~(np.abs(slab.weights) <= (limit if settings.symmetric else limit / 2))
    if wrong.any():
        at = int(np.argmax(wrong))
        width = slab.count // (slab.rows.stop - slab.rows.start)
        place = at if slab.order is None else int(np.flatnonzero(slab.order == at)[0])
        cell = int(slab.cells[np.searchsorted(slab.begins, place, side="right") - 1])
        row = slab.rows.start + cell // width
        value, columns = slab.weights[at], ""
        if settings.group:
            first = cell % width * settings.group
            columns = f" in columns {first} to {min(first + settings.group, shape[1]) - 1}"
        rule = f"its scale may exceed float16's {_LARGEST:.0f}" if np.isfinite(value) else "a weight must be finite"
        raise InvalidArgument(f"quantize: a holds {value} in row {row}{columns}, {rule}; mend the weights first.")


def _steps(settings: _Settings) -> int:
    """Distance of the codes that the range of a group is laid on."""
    low, high = CODES[settings.dtype]
    return high if settings.symmetric else high - low


@dataclass(frozen=True)
class _Fitted:
    """Scales and zero points, one a run."""

    scales: Float16
    zeros: Codes


class _Runs:
    """Some runs of weights one behind the other, few enough that what is made of them is not much memory.

    In float64, where the quotient of weight and scale never rounds onto a tie that it is not.
    """

    def __init__(self, weights: Float32, begins: Array, settings: _Settings) -> None:
        self._weights = weights.astype(np.float64)
        self._begins = begins
        self._counts = np.diff(begins, append=weights.size)
        self._own = np.repeat(np.arange(begins.size), self._counts)
        self._settings = settings

    def fit(self) -> _Fitted:
        """The scales with which nothing clips, or with `search` those of least squared error."""
        low = np.minimum(np.minimum.reduceat(self._weights, self._begins), 0.0)
        high = np.maximum(np.maximum.reduceat(self._weights, self._begins), 0.0)
        best = _fit_range(low, high, self._settings)
        if not self._settings.search:
            return best
        least = self._squared_error(best)
        for ratio in RATIOS:
            trial = _fit_range(low * ratio, high * ratio, self._settings)
            error = self._squared_error(trial)
            better = error < least
            least = np.where(better, error, least)
            scales, zeros = np.where(better, trial.scales, best.scales), np.where(better, trial.zeros, best.zeros)
            best = _Fitted(scales, zeros)
        return best

    def codes(self, fitted: _Fitted) -> Float64:
        """The nearest code of each weight."""
        return self._codes(self._spread(fitted.scales), self._spread(fitted.zeros))

    def _codes(self, scales: Float64, zeros: Float64) -> Float64:
        low, high = CODES[self._settings.dtype]
        steps = self._weights / scales
        np.rint(steps, out=steps)
        if not self._settings.symmetric:
            steps += zeros
        found: Float64 = np.clip(steps, low, high, out=steps)
        return found

    def _squared_error(self, fitted: _Fitted) -> Float64:
        """The sum of squared errors of each run."""
        scales, zeros = self._spread(fitted.scales), self._spread(fitted.zeros)
        values = self._codes(scales, zeros)
        if not self._settings.symmetric:
            values -= zeros
        values *= scales
        values -= self._weights
        values *= values
        found: Float64 = np.bincount(self._own, weights=values, minlength=self._begins.size).astype(np.float64)
        return found

    def _spread(self, values: Array) -> Float64:
        """For each weight what its run has."""
        return np.repeat(values.astype(np.float64), self._counts)


def _fit(slab: _Slab, settings: _Settings) -> tuple[Codes, Float16, Codes]:
    """Codes of all weights as they are stored, and scales and zero points of all cells."""
    weights = slab.weights if slab.order is None else slab.weights[slab.order]
    codes = np.empty(weights.size, dtype=np.int8)
    scales = np.ones(slab.count, dtype=np.float16)
    # The range of no weights is 0 to 0, and 0 has the lowest code.
    zeros = np.full(slab.count, 0 if settings.symmetric else CODES[settings.dtype][0], dtype=np.int8)
    ends = np.append(slab.begins[1:], weights.size)
    first = 0
    while first < slab.begins.size:
        begin = slab.begins[first]
        last = max(first + 1, int(np.searchsorted(ends, begin + _CHUNK_ELEMS, side="right")))
        taken, cells = slice(begin, ends[last - 1]), slab.cells[first:last]
        runs = _Runs(weights[taken], slab.begins[first:last] - begin, settings)
        fitted = runs.fit()
        codes[taken], scales[cells], zeros[cells] = runs.codes(fitted), fitted.scales, fitted.zeros
        first = last
    if slab.order is not None:
        stored = np.empty_like(codes)
        stored[slab.order] = codes
        codes = stored
    return codes, scales, zeros


def _fit_range(low: Float64, high: Float64, settings: _Settings) -> _Fitted:
    """Scales and zero points for weights in [low, high], which holds 0."""
    span = np.maximum(-low, high) if settings.symmetric else high - low
    scales = _round_up(span / _steps(settings))
    zeros = np.zeros(span.shape, dtype=np.int8)
    if not settings.symmetric:
        first, last = CODES[settings.dtype]
        zeros = np.clip(np.rint(first - low / scales.astype(np.float64)), first, last).astype(np.int8)
    return _Fitted(scales, zeros)


def _round_up(scales: Float64) -> Float16:
    """The nearest float16 that is not smaller, and 1 for 0."""
    found = scales.astype(np.float16)
    with np.errstate(over="ignore"):  # of the largest float16, whose neighbour is not taken
        above = np.nextafter(found, np.float16(np.inf))
    found = np.where(found.astype(np.float64) < scales, above, found)
    return np.where(scales > 0, found, np.float16(1)).astype(np.float16)
