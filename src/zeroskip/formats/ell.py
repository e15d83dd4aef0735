"""ELL: every row padded to the length of the longest, so that no offsets are needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._errors import FormatError
from ._base import (
    Array,
    Entries,
    SparseMatrix,
    check_array,
    check_data,
    check_size,
    magnitude_bits,
    no_params,
    offsets_of,
    padded,
    register_format,
)
from ._scales import Scales

if TYPE_CHECKING:
    from .coo import COO

PADDING = -1
I16_COLUMNS = 32768


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class ELL(SparseMatrix):
    """Rows of equal length: the entries of each row, then padding up to the longest row.

    Padding has the column -1, so that it is not taken for a stored zero, and the value 0; in a quantised matrix the
    code that means 0 in column 0 of its row. It is no entry: `nnz` leaves it out, `nbytes` counts it.

    Source: the ITPACK format; Kincaid, Oppe, Young, "ITPACKV 2D User's Guide", 1989. That one is column-major, for
    vector machines; here rows are contiguous.

    Args:
        shape: (M, K).
        indices: Columns, (M, width), increasing within each row and then -1: int16, int32 or int64. What zeroskip
            builds takes the narrowest that holds K - 1.
        data: Values, (M, width), in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "ell"
    array_names: ClassVar[tuple[str, ...]] = ("indices", "data")

    shape: tuple[int, int]
    indices: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    @property
    def nnz(self) -> int:
        return int(np.count_nonzero(self.indices >= 0))

    def validate(self) -> None:
        check_data("ELL", self.data, self.dtype, 2)
        check_array("ELL", "indices", self.indices, (np.int16, np.int32, np.int64), 2)
        wanted = (self.shape[0], self.indices.shape[1])
        check_size("ELL", "indices", self.indices.shape, wanted, f"shape {self.shape}")
        check_size("ELL", "data", self.data.shape, self.indices.shape, "indices")
        check_columns("ELL", self.indices, self.shape[1])
        wrong = out_of_order(self.indices[:, :-1], self.indices[:, 1:])
        if wrong.any():
            row, slot = np.argwhere(wrong)[0].tolist()
            raise disorder("ELL", f"[{row}, {slot + 1}]", self.indices[row, slot : slot + 2], row)
        check_padding(self)

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> ELL:
        no_params(cls, params)
        coo = coo.coalesced()
        slots, counts = slots_of(coo)
        shape = (coo.shape[0], int(counts.max()))
        indices: Array = np.full(shape, PADDING, dtype=index_type(coo.shape[1]))
        indices[coo.row, slots] = coo.col
        data = padded(coo, shape, (np.arange(shape[0])[:, None], np.zeros((1, 1), dtype=np.int64)))
        data[coo.row, slots] = coo.data
        return cls(coo.shape, indices, data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        return np.arange(self.shape[0])[:, None], np.maximum(self.indices, 0).astype(np.int64)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return arrays["indices"].shape

    def entries(self) -> Entries:
        stored = self.indices >= 0
        rows = np.repeat(np.arange(self.shape[0], dtype=np.int64), stored.sum(axis=1))
        return Entries(rows, self.indices[stored].astype(np.int64), self.data[stored])


def index_type(columns: int) -> type:
    """The narrowest signed integer that holds every column, and -1."""
    return np.int16 if columns <= I16_COLUMNS else np.int32 if columns <= 2**31 - 1 else np.int64


def slots_of(coo: COO) -> tuple[Array, Array]:
    """The position of each entry in its row, and the number of entries of each row; `coo` is coalesced."""
    indptr = offsets_of(coo.row, coo.shape[0])
    return np.arange(coo.nnz) - indptr[coo.row], np.diff(indptr)


def check_columns(where: str, indices: Array, limit: int) -> None:
    """Refuse columns that are neither in [0, limit) nor -1."""
    wrong = (indices < PADDING) | (indices >= limit)
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        raise FormatError(
            f"{where}: indices{at} is {indices[tuple(at)]}, out of range for {limit} columns, and padding is -1; "
            "rebuild the indices."
        )


def out_of_order(before: Array, after: Array) -> Array:
    """Where a column does not increase from one slot of a row to the next, or comes after padding."""
    wrong: Array = (after >= 0) & ((before < 0) | (before >= after))
    return wrong


def disorder(where: str, place: str, pair: Array, row: int) -> FormatError:
    """What `out_of_order` found, in words: `pair` is a slot and the next, at `place`."""
    before, after = pair.tolist()
    what = "after padding" if before < 0 else "there twice" if before == after else f"after {before}"
    return FormatError(
        f"{where}: indices{place} = {after} is {what} in row {row}, columns increase within a row and padding comes "
        "last; sort them and sum duplicates (COO does both)."
    )


def check_padding(a: SparseMatrix) -> None:
    """Refuse padding that is not zero, or not the code for it: `decoded` promises that it means 0."""
    indices: Array = a.indices  # type: ignore[attr-defined]
    found = magnitude_bits(a.data, a.dtype) if a.scales is None else a.data != a.scales.zeros_at(*a.places())
    wrong = (found != 0) & (indices < 0)
    if wrong.any():
        at = np.argwhere(wrong)[0].tolist()
        zero = "0" if a.scales is None else "the code of 0 in column 0 of its row"
        raise FormatError(
            f"{type(a).__name__}: data{at} is {a.data[tuple(at)]} at column -1, padding is {zero}; rebuild the arrays."
        )
