"""COO: one row number, one column number and one value for each entry, in any order. The hub of all conversions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from .._errors import FormatError
from ._base import Array, Entries, SparseMatrix, check_array, check_data, check_size, no_params, register_format
from ._dtypes import to_bits, to_float32
from ._scales import Scales


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class COO(SparseMatrix):
    """Coordinates. Order is free and an entry may be there more than once: duplicates stand for their sum.

    Args:
        shape: (M, K).
        row: Row of each entry, int32 or int64.
        col: Column of each entry, same dtype.
        data: Values, in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4; these have no duplicates, which would be sums of codes.
    """

    name: ClassVar[str] = "coo"
    array_names: ClassVar[tuple[str, ...]] = ("row", "col", "data")

    shape: tuple[int, int]
    row: Array
    col: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        check_data("COO", self.data, self.dtype, 1)
        for name, index, limit in (("row", self.row, self.shape[0]), ("col", self.col, self.shape[1])):
            check_array("COO", name, index, (np.int32, np.int64), 1)
            check_size("COO", name, index.shape, self.data.shape, "data")
            if index.size and (index.min() < 0 or index.max() >= limit):
                at = int(np.argmax((index < 0) | (index >= limit)))
                raise FormatError(
                    f"COO: {name}[{at}] is {index[at]}, out of range for shape {self.shape}; rebuild the coordinates."
                )
        if self.row.dtype != self.col.dtype:
            raise FormatError(
                f"COO: row has dtype {self.row.dtype} and col {self.col.dtype}, both must agree; convert one."
            )
        if self.scales is not None:
            self._check_single()

    def _check_single(self) -> None:
        key = self._key()
        order = np.argsort(key, kind="stable")
        twice = np.flatnonzero(np.diff(key[order]) == 0)
        if twice.size:
            at = int(order[twice[0] + 1])
            raise FormatError(
                f"COO: entry {at} is at row {self.row[at]} and column {self.col[at]} a second time, {self.dtype} codes "
                "cannot be added; sum duplicates before quantising."
            )

    def _key(self) -> npt.NDArray[np.int64]:
        key: npt.NDArray[np.int64] = self.row.astype(np.int64) * self.shape[1] + self.col
        return key

    @classmethod
    def of(
        cls, shape: tuple[int, int], rows: Array, cols: Array, data: Array, dtype: str, scales: Scales | None = None
    ) -> COO:
        """Build with the narrowest index type: int32 where both sizes allow it."""
        index = np.int32 if max(shape) <= 2**31 - 1 else np.int64
        return cls(shape=shape, row=rows.astype(index), col=cols.astype(index), data=data, dtype=dtype, scales=scales)

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> COO:
        no_params(cls, params)
        return coo

    def to_coo(self) -> COO:
        return self

    def coalesced(self) -> COO:
        """Sorted by row and column, each entry once: duplicates are added in float32, in their order, then rounded.

        Itself where it is so already.
        """
        key = self._key()
        if key.size < 2 or bool((key[1:] > key[:-1]).all()):
            return self
        order = np.argsort(key, kind="stable")
        key = key[order]
        data = self.data[order]
        first = np.flatnonzero(np.concatenate(([True], key[1:] != key[:-1])))
        if first.size < key.size:
            sums = np.add.reduceat(to_float32(data, self.dtype), first)
            data = to_bits(sums, self.dtype)
        return COO(self.shape, self.row[order][first], self.col[order][first], data, self.dtype, self.scales)

    def places(self) -> tuple[Array, Array]:
        return self.row, self.col

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return arrays["row"].shape

    def entries(self) -> Entries:
        coo = self.coalesced()
        return Entries(coo.row.astype(np.int64), coo.col.astype(np.int64), coo.data)
