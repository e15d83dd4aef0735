"""SELL-C-sigma: ELL in slices of C rows, each as wide as its own longest row, rows sorted by length within windows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._errors import FormatError, InvalidArgument
from ._base import (
    Array,
    Entries,
    SparseMatrix,
    check_array,
    check_data,
    check_offsets,
    check_size,
    no_params,
    padded,
    register_format,
    rows_of,
)
from ._scales import Scales
from .ell import PADDING, check_columns, check_padding, disorder, index_type, out_of_order, slots_of

if TYPE_CHECKING:
    from .coo import COO

C, SIGMA = 8, 256


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class SELL(SparseMatrix):
    """Slices of c rows. In windows of sigma rows the longest come first, so that rows of a slice are of like length.

    Padding is marked and valued as in ELL, and is no entry. Row `rows[i]` of the matrix is stored i-th. Slice s
    holds the rows stored from s c on, slot after slot: its element (slot j, row r) is `indptr[s] + j h + r`, with h = c
    rows, and in the last slice those that are left (the source pads it to c).

    Source: Kreutzer, Hager, Wellein, Fehske, Bishop, "A Unified Sparse Matrix Data Format for Efficient General Sparse
    Matrix-Vector Multiplication on Modern Processors with Wide SIMD Units", SIAM J. Sci. Comput. 36(5), 2014.

    Args:
        shape: (M, K).
        c: Rows of a slice; `from_coo` takes 8 if not told.
        sigma: Rows of a window: a multiple of c, or 1 for no sorting; `from_coo` takes the multiple of c from 256 on.
        indptr: Offsets of the slices in `data`, int64, ceil(M / c) + 1.
        rows: Which row is stored where, (M,), each window a permutation of itself: int32, or int64 where M >= 2^31.
        indices: Columns, (slots,), increasing within each row and then -1: int16, int32 or int64, as in ELL.
        data: Values, (slots,), in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "sell"
    array_names: ClassVar[tuple[str, ...]] = ("indptr", "rows", "indices", "data")
    param_names: ClassVar[tuple[str, ...]] = ("c", "sigma")

    shape: tuple[int, int]
    c: int
    sigma: int
    indptr: Array
    rows: Array
    indices: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    @property
    def nnz(self) -> int:
        return int(np.count_nonzero(self.indices >= 0))

    def validate(self) -> None:
        c, sigma = check_slices("SELL", self.c, self.sigma)
        object.__setattr__(self, "c", c)
        object.__setattr__(self, "sigma", sigma)
        check_data("SELL", self.data, self.dtype, 1)
        check_array("SELL", "indptr", self.indptr, (np.int64,), 1)
        check_array("SELL", "rows", self.rows, (np.int32, np.int64), 1)
        check_array("SELL", "indices", self.indices, (np.int16, np.int32, np.int64), 1)
        slices = -(-self.shape[0] // c)
        check_size("SELL", "indptr", self.indptr.shape, (slices + 1,), f"shape {self.shape} with c = {c}")
        check_size("SELL", "rows", self.rows.shape, (self.shape[0],), f"shape {self.shape}")
        check_size("SELL", "indices", self.indices.shape, self.data.shape, "data")
        check_offsets("SELL", self.indptr, self.data.size)
        heights = slice_heights(self.shape[0], c)
        uneven = np.flatnonzero(np.diff(self.indptr) % heights)
        if uneven.size:
            at = int(uneven[0])
            raise FormatError(
                f"SELL: indptr[{at + 1}] is {self.indptr[at + 1]} after {self.indptr[at]}, slice {at} has "
                f"{heights[at]} rows of equal width; rebuild the offsets."
            )
        self._check_rows()
        check_columns("SELL", self.indices, self.shape[1])
        self._check_order(heights)
        check_padding(self)

    def _check_rows(self) -> None:
        """Each window of `rows` holds its own rows, each once."""
        outside = (self.rows < 0) | (self.rows >= self.shape[0])
        moved = self.rows // self.sigma != np.arange(self.shape[0]) // self.sigma
        strays = np.flatnonzero(outside | moved)
        if strays.size:
            at = int(strays[0])
            raise FormatError(
                f"SELL: rows[{at}] is {self.rows[at]}, the {self.shape[0]} rows move within windows of sigma = "
                f"{self.sigma}; rebuild them."
            )
        missing = np.flatnonzero(np.bincount(self.rows, minlength=self.shape[0]) != 1)
        if missing.size:
            raise FormatError(
                f"SELL: rows has {missing[0]} {np.count_nonzero(self.rows == missing[0])} times, each row is there "
                "once; rebuild them."
            )

    def _check_order(self, heights: Array) -> None:
        slices = rows_of(self.indptr)
        after = np.flatnonzero(np.arange(slices.size) - self.indptr[slices] >= heights[slices])
        before = after - heights[slices[after]]
        wrong = out_of_order(self.indices[before], self.indices[after])
        if wrong.any():
            at = int(np.argmax(wrong))
            pair = self.indices[[before[at], after[at]]]
            raise disorder("SELL", f"[{after[at]}]", pair, int(self.places()[0][after[at]]))

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> SELL:
        c = params.pop("c", C)
        sigma = params.pop("sigma", None)
        no_params(cls, params)
        if sigma is None:
            sigma = -(-SIGMA // c) * c if isinstance(c, int | np.integer) and c > 0 else SIGMA
        c, sigma = check_slices("SELL.from_coo", c, sigma)
        coo = coo.coalesced()
        height = coo.shape[0]
        slots, counts = slots_of(coo)
        rows = np.lexsort((-counts, np.arange(height) // sigma))  # stable: rows of one length stay in order
        heights = slice_heights(height, c)
        widths = np.maximum.reduceat(counts[rows], np.arange(0, height, c))
        indptr = np.concatenate(([0], np.cumsum(widths * heights)))
        stored = np.empty(height, dtype=np.int64)
        stored[rows] = np.arange(height)
        place = stored[coo.row]
        at = indptr[place // c] + slots * heights[place // c] + place % c
        indices: Array = np.full(int(indptr[-1]), PADDING, dtype=index_type(coo.shape[1]))
        indices[at] = coo.col
        data = padded(coo, indices.shape, (rows[_stored_rows(indptr, heights, c)], np.zeros(1, dtype=np.int64)))
        data[at] = coo.data
        rows = rows.astype(np.int32 if height <= 2**31 - 1 else np.int64)
        return cls(coo.shape, c, sigma, indptr, rows, indices, data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        stored = _stored_rows(self.indptr, slice_heights(self.shape[0], self.c), self.c)
        return self.rows[stored].astype(np.int64), np.maximum(self.indices, 0).astype(np.int64)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return arrays["indices"].shape

    def entries(self) -> Entries:
        rows, cols = self.places()
        stored = np.flatnonzero(self.indices >= 0)
        order = stored[np.argsort(rows[stored], kind="stable")]  # slots of one row already come by column
        return Entries(rows[order], cols[order], self.data[order])


def slice_heights(rows: int, c: int) -> Array:
    """Rows of each slice: c, and what is left in the last."""
    return np.minimum(c, rows - np.arange(0, rows, c, dtype=np.int64))


def _stored_rows(indptr: Array, heights: Array, c: int) -> Array:
    """Which of the stored rows each slot belongs to."""
    slices = rows_of(indptr)
    found: Array = slices * c + (np.arange(slices.size) - indptr[slices]) % heights[slices]
    return found


def check_slices(where: str, c: Any, sigma: Any) -> tuple[int, int]:
    """`c` and `sigma` as ints, if slices and windows can have these sizes."""
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in (c, sigma))
    if not whole or not 1 <= c < 2**31 or not 1 <= sigma < 2**31 or (sigma != 1 and sigma % c):
        raise InvalidArgument(
            f"{where}: c is {c!r} and sigma {sigma!r}, c is at least 1 and sigma is 1 or a multiple of c; "
            "pass for example c=8, sigma=256."
        )
    return int(c), int(sigma)
