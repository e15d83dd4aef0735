"""CSR: entries row by row, with one column index each and one offset for each row."""

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

U16_COLUMNS = 65536


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class CSR(SparseMatrix):
    """Compressed rows.

    Args:
        shape: (M, K).
        indptr: Row offsets, int64, M + 1.
        indices: Columns, increasing within each row: uint16 (only where K <= 65536), int32 or int64. What zeroskip
            builds takes the narrowest of these.
        data: Values, in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "csr"
    array_names: ClassVar[tuple[str, ...]] = ("indptr", "indices", "data")

    shape: tuple[int, int]
    indptr: Array
    indices: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        check_data("CSR", self.data, self.dtype, 1)
        check_array("CSR", "indptr", self.indptr, (np.int64,), 1)
        check_array("CSR", "indices", self.indices, (np.uint16, np.int32, np.int64), 1)
        check_size("CSR", "indptr", self.indptr.shape, (self.shape[0] + 1,), f"shape {self.shape}")
        check_size("CSR", "indices", self.indices.shape, self.data.shape, "data")
        if self.indices.dtype == np.uint16 and self.shape[1] > U16_COLUMNS:
            raise FormatError(
                f"CSR: indices has dtype uint16 but K is {self.shape[1]}, above {U16_COLUMNS}; use int32 indices."
            )
        check_offsets("CSR", self.indptr, self.data.size)
        check_indices("CSR", self.indptr, self.indices, self.shape[1])

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> CSR:
        no_params(cls, params)
        coo = coo.coalesced()
        columns = coo.shape[1]
        index = np.uint16 if columns <= U16_COLUMNS else np.int32 if columns <= 2**31 - 1 else np.int64
        indptr = offsets_of(coo.row, coo.shape[0])
        return cls(coo.shape, indptr, coo.col.astype(index), coo.data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        return rows_of(self.indptr), self.indices.astype(np.int64)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return arrays["indices"].shape

    def entries(self) -> Entries:
        return Entries(*self.places(), self.data)
