"""BSR: CSR over dense blocks of r x c elements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._errors import InvalidArgument, ShapeError
from ._base import (
    Array,
    Entries,
    SparseMatrix,
    check_array,
    check_data,
    check_indices,
    check_offsets,
    check_size,
    magnitude_bits,
    no_params,
    offsets_of,
    register_format,
    rows_of,
)

if TYPE_CHECKING:
    from .coo import COO


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class BSR(SparseMatrix):
    """Compressed rows of blocks. A block with one entry is stored whole: its zeros count in `nnz` and `nbytes`.

    Args:
        shape: (M, K), a multiple of `block`.
        block: (r, c), rows and columns of a block.
        indptr: Offsets of the block rows, int64, M / r + 1.
        indices: Block columns, int32, increasing within each block row.
        data: Values, (blocks, r, c), in the array form of `dtype`.
        dtype: Value type.
    """

    name: ClassVar[str] = "bsr"
    array_names: ClassVar[tuple[str, ...]] = ("indptr", "indices", "data")
    param_names: ClassVar[tuple[str, ...]] = ("block",)

    shape: tuple[int, int]
    block: tuple[int, int]
    indptr: Array
    indices: Array
    data: Array
    dtype: str = "float32"

    def validate(self) -> None:
        block = check_block("BSR", self.block, self.shape)
        object.__setattr__(self, "block", block)
        check_data("BSR", self.data, self.dtype, 3)
        check_array("BSR", "indptr", self.indptr, (np.int64,), 1)
        check_array("BSR", "indices", self.indices, (np.int32,), 1)
        check_size("BSR", "indptr", self.indptr.shape, (self.shape[0] // block[0] + 1,), f"shape {self.shape}")
        check_size("BSR", "data", self.data.shape, (self.indices.size, *block), f"block {block}")
        check_offsets("BSR", self.indptr, self.indices.size)
        check_indices("BSR", self.indptr, self.indices, self.shape[1] // block[1])

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> BSR:
        block = params.pop("block", None)
        no_params(cls, params)
        if block is None:
            raise InvalidArgument("BSR.from_coo: block is missing; pass block=(rows, columns), for example (16, 1).")
        r, c = check_block("BSR.from_coo", block, coo.shape)
        coo = coo.coalesced()
        across = coo.shape[1] // c
        key = (coo.row.astype(np.int64) // r) * across + coo.col // c
        blocks, place = np.unique(key, return_inverse=True)
        data = np.zeros((blocks.size, r, c), dtype=coo.data.dtype)
        data[place, coo.row % r, coo.col % c] = coo.data
        indptr = offsets_of(blocks // across, coo.shape[0] // r)
        return cls(coo.shape, (r, c), indptr, (blocks % across).astype(np.int32), data, coo.dtype)

    def entries(self) -> Entries:
        r, c = self.block
        rows = rows_of(self.indptr)[:, None, None] * r + np.arange(r)[:, None]
        cols = self.indices.astype(np.int64)[:, None, None] * c + np.arange(c)
        rows, cols = (np.broadcast_to(index, self.data.shape).ravel() for index in (rows, cols))
        order = np.argsort(rows, kind="stable")  # blocks of one block row already come by column
        return Entries(rows[order], cols[order], self.data.ravel()[order])

    def to_coo(self) -> COO:
        from .coo import COO

        rows, cols, data = self.entries()
        kept = np.flatnonzero(magnitude_bits(data, self.dtype))
        return COO.of(self.shape, rows[kept], cols[kept], data[kept], self.dtype)


def check_block(where: str, block: Any, shape: tuple[int, int]) -> tuple[int, int]:
    """`block` as a pair of ints that divide `shape`."""
    try:
        r, c = (int(size) for size in block)
        exact = all(int(size) == size for size in block) and r >= 1 and c >= 1
    except (TypeError, ValueError):
        exact = False
    if not exact:
        raise InvalidArgument(f"{where}: block is {block!r}, it has two sizes of at least 1; pass block=(r, c).")
    if shape[0] % r or shape[1] % c:
        raise ShapeError(f"{where}: block is {(r, c)}, it must divide shape {shape}; choose another block.")
    return r, c
