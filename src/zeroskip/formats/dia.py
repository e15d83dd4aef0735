"""DIA: the diagonals that hold an entry, each stored whole."""

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
    no_params,
    padded,
    register_format,
    without_zeros,
)
from ._scales import Scales

if TYPE_CHECKING:
    from .coo import COO


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class DIA(SparseMatrix):
    """Whole diagonals, one after another. A zero on a stored diagonal is padding: it counts in `nnz` and `nbytes`.

    Diagonal k holds the elements (i, i + k), from its upper end down: min(M, K - k) - max(0, -k) of them. Nothing is
    stored outside of the matrix. The zero of a quantised matrix is the code that means 0: its zero point.

    Source: Saad, "Iterative Methods for Sparse Linear Systems", 2nd edition, 2003, section 3.4; there, and in SciPy,
    all diagonals have the same length and reach beyond the matrix.

    Args:
        shape: (M, K).
        offsets: Column less row of each diagonal, int64, increasing, in (-M, K).
        data: Values, flat, in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "dia"
    array_names: ClassVar[tuple[str, ...]] = ("offsets", "data")

    shape: tuple[int, int]
    offsets: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        check_data("DIA", self.data, self.dtype, 1)
        wanted = self.data_shape(self.shape, {"offsets": self.offsets}, {})
        check_size("DIA", "data", self.data.shape, wanted, f"shape {self.shape} with these {self.offsets.size} offsets")

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> DIA:
        no_params(cls, params)
        coo = coo.coalesced()
        offsets, which = np.unique(coo.col.astype(np.int64) - coo.row, return_inverse=True)
        starts = _starts(offsets, coo.shape)
        rows, cols = _places(offsets, coo.shape)
        data = padded(coo, rows.shape, (rows, cols))
        data[starts[which] + coo.row - np.maximum(0, -offsets)[which]] = coo.data
        return cls(coo.shape, offsets, data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        return _places(self.offsets, self.shape)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        offsets = arrays["offsets"]
        check_array("DIA", "offsets", offsets, (np.int64,), 1)
        wrong = (offsets <= -shape[0]) | (offsets >= shape[1])
        if wrong.any():
            at = int(np.argmax(wrong))
            raise FormatError(
                f"DIA: offsets[{at}] is {offsets[at]}, out of range for shape {shape}, whose diagonals are "
                f"{1 - shape[0]} to {shape[1] - 1}; rebuild the offsets."
            )
        stays = offsets[1:] <= offsets[:-1]
        if stays.any():
            at = int(np.argmax(stays))
            raise FormatError(
                f"DIA: offsets[{at + 1}] is {offsets[at + 1]} after {offsets[at]}, offsets increase; "
                "sort the diagonals, none twice."
            )
        return (int(_starts(offsets, shape)[-1]),)

    def entries(self) -> Entries:
        rows, cols = self.places()
        order = np.argsort(rows, kind="stable")  # diagonals already come by column
        return Entries(rows[order], cols[order], self.data[order])

    def to_coo(self) -> COO:
        return without_zeros(self)


def _starts(offsets: Array, shape: tuple[int, int]) -> Array:
    """Where each diagonal begins in `data`, and where the last one ends."""
    lengths = np.minimum(shape[0], shape[1] - offsets) - np.maximum(0, -offsets)
    return np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(lengths)))


def _places(offsets: Array, shape: tuple[int, int]) -> tuple[Array, Array]:
    """Rows and columns of the elements of these diagonals, flat."""
    starts = _starts(offsets, shape)
    which = np.repeat(np.arange(offsets.size), np.diff(starts))
    rows = np.arange(which.size) - starts[which] + np.maximum(0, -offsets)[which]
    return rows, rows + offsets[which]
