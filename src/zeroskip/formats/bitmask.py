"""Bitmask: one bit for each element of the matrix, and the values of the set bits in row order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from .._errors import FormatError
from ._base import (
    Array,
    Entries,
    SparseMatrix,
    check_array,
    check_data,
    check_size,
    no_params,
    register_format,
)
from ._scales import Scales

if TYPE_CHECKING:
    from .coo import COO

_POPCOUNT = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).astype(np.uint8)


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class Bitmask(SparseMatrix):
    """Bits for the pattern. Offsets are not stored: they are the running count of set bits (`indptr`).

    Args:
        shape: (M, K).
        bits: uint8, (M, ceil(K / 8)); bit j of byte b is column 8 b + j, and bits from K on are 0.
        data: Values of the set bits, row by row and by column, in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "bitmask"
    array_names: ClassVar[tuple[str, ...]] = ("bits", "data")

    shape: tuple[int, int]
    bits: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        rows, columns = self.shape
        check_data("Bitmask", self.data, self.dtype, 1)
        check_array("Bitmask", "bits", self.bits, (np.uint8,), 2)
        check_size("Bitmask", "bits", self.bits.shape, (rows, -(-columns // 8)), f"shape {self.shape}")
        if columns % 8:
            beyond = self.bits[:, -1] >> (columns % 8)
            if beyond.any():
                raise FormatError(
                    f"Bitmask: bits[{int(np.argmax(beyond != 0))}, {self.bits.shape[1] - 1}] has bits set beyond "
                    f"column {columns}, they must be 0; clear them."
                )
        count = int(self.indptr[-1])
        if count != self.data.size:
            raise FormatError(
                f"Bitmask: bits has {count} bits set but data holds {self.data.size} values, both must agree; "
                "the arrays are cut or belong to different matrices."
            )

    @property
    def indptr(self) -> npt.NDArray[np.int64]:
        """Offset of each row's first value in `data` (M + 1), counted from the bits."""
        offsets = np.zeros(self.shape[0] + 1, dtype=np.int64)
        np.cumsum(_set_bits(self.bits), out=offsets[1:])
        return offsets

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> Bitmask:
        no_params(cls, params)
        coo = coo.coalesced()
        mask = np.zeros(coo.shape, dtype=bool)
        mask[coo.row, coo.col] = True
        return cls(coo.shape, np.packbits(mask, axis=1, bitorder="little"), coo.data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        rows, cols = np.nonzero(self.mask())
        return rows, cols

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return (int(_set_bits(arrays["bits"]).sum()),)

    def mask(self) -> npt.NDArray[np.bool_]:
        """The pattern, (M, K): True where an entry is stored."""
        return np.unpackbits(self.bits, axis=1, count=self.shape[1], bitorder="little").view(np.bool_)

    def entries(self) -> Entries:
        return Entries(*self.places(), self.data)


def _set_bits(bits: Array) -> npt.NDArray[np.int64]:
    """How many bits are set in each row, eight bytes at a time where they fit: loading a model counts all its bits."""
    count = getattr(np, "bitwise_count", None)  # NumPy 2
    if count is None:
        counted: npt.NDArray[np.int64] = _POPCOUNT[bits].sum(axis=1, dtype=np.int64)
        return counted
    words = bits.view(np.uint64) if bits.shape[1] % 8 == 0 else bits
    sums: npt.NDArray[np.int64] = count(words).sum(axis=1, dtype=np.int64)
    return sums
