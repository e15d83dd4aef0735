"""BSR: CSR over dense blocks of r x c elements."""

from __future__ import annotations

from collections.abc import Mapping
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
    no_params,
    offsets_of,
    padded,
    register_format,
    rows_of,
    without_zeros,
)
from ._scales import Scales

if TYPE_CHECKING:
    from .coo import COO


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class BSR(SparseMatrix):
    """Compressed rows of blocks. A block with one entry is stored whole: its zeros count in `nnz` and `nbytes`.

    Column vectors, v rows that keep or drop a column together, are blocks of (v, 1): `block=(16, 1)`.

    The zero of a quantised matrix is the code that means 0: its zero point.

    Args:
        shape: (M, K), a multiple of `block`.
        block: (r, c), rows and columns of a block.
        indptr: Offsets of the block rows, int64, M / r + 1.
        indices: Block columns, int32, increasing within each block row.
        data: Values, (blocks, r, c), in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
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
    scales: Scales | None = None

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
        down, right = blocks // across, blocks % across
        data = padded(coo, (blocks.size, r, c), _places(down, right, (r, c)))
        data[place, coo.row % r, coo.col % c] = coo.data
        indptr = offsets_of(down, coo.shape[0] // r)
        return cls(coo.shape, (r, c), indptr, right.astype(np.int32), data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        return _places(rows_of(self.indptr), self.indices.astype(np.int64), self.block)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        return (arrays["indices"].size, *check_block("BSR", params["block"], shape))

    def entries(self) -> Entries:
        rows, cols = (np.broadcast_to(index, self.data.shape).ravel() for index in self.places())
        order = np.argsort(rows, kind="stable")  # blocks of one block row already come by column
        return Entries(rows[order], cols[order], self.data.ravel()[order])

    def to_coo(self) -> COO:
        return without_zeros(self)


def _places(down: Array, right: Array, block: tuple[int, int]) -> tuple[Array, Array]:
    """Rows and columns of the elements of blocks at block rows `down` and block columns `right`."""
    r, c = block
    return down[:, None, None] * r + np.arange(r)[:, None], right[:, None, None] * c + np.arange(c)


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
