"""N:M: exactly n stored entries in each group of m neighbours along K."""

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


@register_format
@dataclass(frozen=True, eq=False, repr=False)
class NM(SparseMatrix):
    """N of each M kept. Groups with fewer than n entries are filled with zeros at their lowest free positions.

    The zero of a quantised matrix is the code that means 0: its zero point.

    Args:
        shape: (M, K); `m` divides K.
        n: Entries stored in a group.
        m: Size of a group, at most 256.
        data: Values, (M, K / m, n), in the array form of `dtype`.
        indices: Position of each value in its group, uint8, (M, K / m, n), increasing.
        dtype: Value type.
        scales: What the codes mean, for int8 and int4.
    """

    name: ClassVar[str] = "nm"
    array_names: ClassVar[tuple[str, ...]] = ("data", "indices")
    param_names: ClassVar[tuple[str, ...]] = ("n", "m")

    shape: tuple[int, int]
    n: int
    m: int
    data: Array
    indices: Array
    dtype: str = "float32"
    scales: Scales | None = None

    def validate(self) -> None:
        check_pattern("NM", self.n, self.m, self.shape)
        object.__setattr__(self, "n", int(self.n))
        object.__setattr__(self, "m", int(self.m))
        check_data("NM", self.data, self.dtype, 3)
        check_array("NM", "indices", self.indices, (np.uint8,), 3)
        wanted = (self.shape[0], self.shape[1] // self.m, self.n)
        check_size("NM", "data", self.data.shape, wanted, f"shape {self.shape} with {self.n}:{self.m}")
        check_size("NM", "indices", self.indices.shape, wanted, f"shape {self.shape} with {self.n}:{self.m}")
        if int(self.indices.max()) >= self.m:
            at = np.argwhere(self.indices >= self.m)[0].tolist()
            raise FormatError(
                f"NM: indices{at} is {self.indices[tuple(at)]}, out of range for groups of {self.m}; "
                "rebuild the indices."
            )
        stays = self.indices[:, :, 1:] <= self.indices[:, :, :-1]
        if stays.any():
            row, group, slot = np.argwhere(stays)[0].tolist()
            raise FormatError(
                f"NM: indices[{row}, {group}, {slot + 1}] is {self.indices[row, group, slot + 1]} after "
                f"{self.indices[row, group, slot]}, positions increase within a group; sort them, none twice."
            )

    @classmethod
    def from_coo(cls, coo: COO, **params: Any) -> NM:
        n, m = params.pop("n", None), params.pop("m", None)
        no_params(cls, params)
        if n is None or m is None:
            raise InvalidArgument("NM.from_coo: n or m is missing; pass both, for example n=2, m=4.")
        check_pattern("NM.from_coo", n, m, coo.shape)
        coo = coo.coalesced()
        groups = coo.shape[1] // m
        used = np.zeros((coo.shape[0], groups, m), dtype=bool)
        used[coo.row, coo.col // m, coo.col % m] = True
        count = used.sum(axis=2)
        if count.max() > n:
            row, group = (int(i) for i in np.argwhere(count > n)[0])
            raise FormatError(
                f"NM.from_coo: row {row} has {count[row, group]} entries in columns {group * m} to "
                f"{group * m + m - 1}, {n}:{m} allows {n}; prune to the pattern first."
            )
        # The n lowest positions of (used first, free after), put back into ascending order.
        chosen = np.sort(np.argsort(~used, axis=2, kind="stable")[:, :, :n], axis=2)
        rows, columns = np.ogrid[: coo.shape[0], : coo.shape[1]]
        dense = padded(coo, coo.shape, (rows, columns)).reshape(coo.shape[0], groups, m)
        dense[coo.row, coo.col // m, coo.col % m] = coo.data
        data = np.ascontiguousarray(np.take_along_axis(dense, chosen, axis=2))
        return cls(coo.shape, int(n), int(m), data, chosen.astype(np.uint8), coo.dtype, coo.scales)

    def places(self) -> tuple[Array, Array]:
        rows, groups, _ = np.ogrid[: self.shape[0], : self.shape[1] // self.m, : self.n]
        return rows, groups * self.m + self.indices

    @classmethod
    def data_shape(
        cls, shape: tuple[int, int], arrays: Mapping[str, Array], params: Mapping[str, Any]
    ) -> tuple[int, ...]:
        check_pattern("NM", params["n"], params["m"], shape)
        return shape[0], shape[1] // params["m"], params["n"]

    def entries(self) -> Entries:
        rows, cols = self.places()
        return Entries(np.broadcast_to(rows, self.data.shape).ravel(), cols.ravel(), self.data.ravel())

    def to_coo(self) -> COO:
        return without_zeros(self)


def check_pattern(where: str, n: Any, m: Any, shape: tuple[int, int]) -> None:
    """Refuse an N:M that is none, or that does not divide K."""
    whole = all(isinstance(size, int | np.integer) and not isinstance(size, bool) for size in (n, m))
    if not whole or not 1 <= n <= m <= 256:
        raise InvalidArgument(f"{where}: n:m is {n}:{m}, it needs 1 <= n <= m <= 256; pass for example n=2, m=4.")
    if shape[1] % m:
        raise ShapeError(f"{where}: m is {m}, it must divide K = {shape[1]}; choose another m or pad the matrix.")
