"""V:N:M: N:M whose candidates, four columns of each M, are the same for V rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .._errors import FormatError, InvalidArgument, ShapeError
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

KEPT_COLUMNS = 4


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class VNM(SparseMatrix):
    """In each block of v rows and m columns four columns are kept, and of these four n elements in each row.

    With n = 2 the elements of the four columns are 2:4, which is what sparse tensor cores multiply; every such matrix
    is n:m as well. Blocks and rows with fewer entries are filled up with their lowest free columns and with zeros,
    which count in `nnz` as those of N:M do. The zero of a quantised matrix is the code that means 0: its zero point.

    Source: Castro, Ivanov, Andrade, Ben-Nun, Fraguela, Hoefler, "VENOM: A Vectorized N:M Format for Unleashing the
    Power of Sparse Tensor Cores", SC 2023. Its two-bit positions take a byte here.

    Args:
        shape: (M, K); `v` divides M and `m` divides K.
        v: Rows of a block.
        n: Elements kept in a row of a block, 1 to 4.
        m: Columns of a block, 4 to 256.
        columns: The columns kept in each block, uint8, (M / v, K / m, 4), increasing, each below m.
        indices: Which of the four each value is in, uint8, (M, K / m, n), increasing, each below 4.
        data: Values, (M, K / m, n), in the array form of `dtype`.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "vnm"
    array_names: ClassVar[tuple[str, ...]] = ("columns", "indices", "data")
    param_names: ClassVar[tuple[str, ...]] = ("v", "n", "m")

    shape: tuple[int, int]
    v: int
    n: int
    m: int
    columns: Array
    indices: Array
    data: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        pattern = check_vnm("VNM", (self.v, self.n, self.m), self.shape)
        for name, size in zip(self.param_names, pattern, strict=True):
            object.__setattr__(self, name, size)
        v, n, m = pattern
        check_data("VNM", self.data, self.dtype, 3)
        check_array("VNM", "columns", self.columns, (np.uint8,), 3)
        check_array("VNM", "indices", self.indices, (np.uint8,), 3)
        why = f"shape {self.shape} with {v}:{n}:{m}"
        wanted = (self.shape[0], self.shape[1] // m, n)
        check_size("VNM", "data", self.data.shape, wanted, why)
        check_size("VNM", "indices", self.indices.shape, wanted, why)
        check_size("VNM", "columns", self.columns.shape, (wanted[0] // v, wanted[1], KEPT_COLUMNS), why)
        _check_increasing("columns", self.columns, m)
        _check_increasing("indices", self.indices, KEPT_COLUMNS)

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> VNM:
        given = [params.pop(name, None) for name in cls.param_names]
        no_params(cls, params)
        if None in given:
            raise InvalidArgument("VNM.from_coo: v, n or m is missing; pass all three, for example v=16, n=2, m=8.")
        v, n, m = check_vnm("VNM.from_coo", given, coo.shape)
        coo = coo.coalesced()
        height, groups = coo.shape[0], coo.shape[1] // m
        block, group, column = coo.row // v, coo.col // m, coo.col % m
        used = np.zeros((height // v, groups, m), dtype=bool)
        used[block, group, column] = True
        columns = _lowest(used, KEPT_COLUMNS, lambda at: f"rows {at[0] * v} to {at[0] * v + v - 1} use", "columns", m)
        slots = np.zeros(used.shape, dtype=np.int64)
        np.put_along_axis(slots, columns, np.arange(KEPT_COLUMNS)[None, None], axis=2)
        slot = slots[block, group, column]
        taken = np.zeros((height, groups, KEPT_COLUMNS), dtype=bool)
        taken[coo.row, group, slot] = True
        indices = _lowest(taken, n, lambda at: f"row {at[0]} has", "entries", m)
        every = np.broadcast_to(np.arange(KEPT_COLUMNS), taken.shape)
        four = padded(coo, taken.shape, _places(columns, every, v, m))
        four[coo.row, group, slot] = coo.data
        data = np.ascontiguousarray(np.take_along_axis(four, indices, axis=2))
        return cls(coo.shape, v, n, m, columns.astype(np.uint8), indices.astype(np.uint8), data, coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        return _places(self.columns, self.indices, self.v, self.m)

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        _, n, m = check_vnm("VNM", [params[name] for name in cls.param_names], shape)
        return shape[0], shape[1] // m, n

    def entries(self) -> Entries:
        rows, cols = self.places()
        return Entries(np.broadcast_to(rows, self.data.shape).ravel(), cols.ravel(), self.data.ravel())

    def to_coo(self) -> COO:
        return without_zeros(self)


def _places(columns: Array, indices: Array, v: int, m: int) -> tuple[Array, Array]:
    """Rows and columns of elements in slots `indices` (M, groups, any) of the four columns of their block."""
    rows, groups, _ = np.ogrid[: indices.shape[0], : indices.shape[1], :1]
    return rows, groups * m + columns[rows // v, groups, indices].astype(np.int64)


def _lowest(used: Array, count: int, who: Any, what: str, m: int) -> Array:
    """The used positions along the last axis, filled up to `count` with the lowest free ones, in ascending order."""
    most = used.sum(axis=2)
    if most.max() > count:
        at = tuple(np.argwhere(most > count)[0].tolist())
        raise FormatError(
            f"VNM.from_coo: {who(at)} {most[at]} {what} in columns {at[1] * m} to {at[1] * m + m - 1}, the pattern "
            f"allows {count}; prune to the pattern first."
        )
    return np.sort(np.argsort(~used, axis=2, kind="stable")[:, :, :count], axis=2)


def _check_increasing(name: str, array: Array, limit: int) -> None:
    """Positions lie below `limit` and increase along the last axis."""
    if int(array.max()) >= limit:
        at = np.argwhere(array >= limit)[0].tolist()
        raise FormatError(f"VNM: {name}{at} is {array[tuple(at)]}, it must be below {limit}; rebuild the {name}.")
    stays = array[:, :, 1:] <= array[:, :, :-1]
    if stays.any():
        i, group, slot = np.argwhere(stays)[0].tolist()
        raise FormatError(
            f"VNM: {name}[{i}, {group}, {slot + 1}] is {array[i, group, slot + 1]} after {array[i, group, slot]}, "
            "positions increase; sort them, none twice."
        )


def check_vnm(where: str, pattern: Any, shape: tuple[int, int]) -> tuple[int, int, int]:
    """V, N and M as ints, if there is such a pattern and it tiles `shape`."""
    v, n, m = pattern
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in (v, n, m))
    if not whole or not (v >= 1 and 1 <= n <= KEPT_COLUMNS <= m <= 256):
        raise InvalidArgument(
            f"{where}: v:n:m is {v}:{n}:{m}, it needs v >= 1 and 1 <= n <= 4 <= m <= 256; pass for example "
            "v=16, n=2, m=8."
        )
    if shape[0] % v or shape[1] % m:
        raise ShapeError(
            f"{where}: v is {v} and m {m}, they must divide M = {shape[0]} and K = {shape[1]}; choose others or pad "
            "the matrix."
        )
    return int(v), int(n), int(m)
