"""CSC: entries column by column, with one row index each and one offset for each column."""

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
    check_indices,
    check_offsets,
    check_size,
    no_params,
    offsets_of,
    register_format,
    rows_of,
)
from ._scales import Scales

if TYPE_CHECKING:
    from .coo import COO

U16_ROWS = 65536


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class CSC(SparseMatrix):
    """Compressed columns: CSR of the transpose.

    Args:
        shape: (M, K).
        indptr: Column offsets, int64, K + 1.
        indices: Rows, increasing within each column: uint16 (only where M <= 65536), int32 or int64. What zeroskip
            builds takes the narrowest of these.
        data: Values, in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "csc"
    array_names: ClassVar[tuple[str, ...]] = ("indptr", "indices", "data")

    shape: tuple[int, int]
    indptr: Array
    indices: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        check_data("CSC", self.data, self.dtype, 1)
        check_array("CSC", "indptr", self.indptr, (np.int64,), 1)
        check_array("CSC", "indices", self.indices, (np.uint16, np.int32, np.int64), 1)
        check_size("CSC", "indptr", self.indptr.shape, (self.shape[1] + 1,), f"shape {self.shape}")
        check_size("CSC", "indices", self.indices.shape, self.data.shape, "data")
        if self.indices.dtype == np.uint16 and self.shape[0] > U16_ROWS:
            raise FormatError(
                f"CSC: indices has dtype uint16 but M is {self.shape[0]}, above {U16_ROWS}; use int32 indices."
            )
        check_offsets("CSC", self.indptr, self.data.size)
        check_indices("CSC", self.indptr, self.indices, self.shape[0], along="column", across="row")

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> CSC:
        no_params(cls, params)
        coo = coo.coalesced()
        rows = coo.shape[0]
        index = np.uint16 if rows <= U16_ROWS else np.int32 if rows <= 2**31 - 1 else np.int64
        order = np.argsort(coo.col, kind="stable")  # entries of one column already come by row
        indptr = offsets_of(coo.col, coo.shape[1])
        return cls(coo.shape, indptr, coo.row[order].astype(index), coo.data[order], coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        return self.indices.astype(np.int64), rows_of(self.indptr)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return arrays["indices"].shape

    def entries(self) -> Entries:
        rows, cols = self.places()
        order = np.argsort(rows, kind="stable")
        return Entries(rows[order], cols[order], self.data[order])
