"""What every mask shares: its sizes and their checks, exact counts, draws by lot, and the step to CSR or BSR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument, ShapeError
from ..._memory import total_bytes
from ...formats import BSR, CSR

Int64 = npt.NDArray[np.int64]
Mask = CSR | BSR

# While a mask is built an entry takes its row and column, a copy of them and its value.
_ENTRY_BYTES = 40


class Rows(NamedTuple):
    """The places of a mask: offsets of the rows, and columns that increase within each."""

    indptr: Int64
    indices: Int64


@dataclass(frozen=True)
class Grid:
    """The sizes of a mask, in blocks where it is made of blocks.

    Args:
        where: What messages call it.
        rows: Queries, or blocks of them.
        cols: Keys, or blocks of them.
        block: Queries and keys in a block; 1 for single entries.
    """

    where: str
    rows: int
    cols: int
    block: int

    @classmethod
    def of(cls, where: str, queries: int, keys: int, block: int = 1) -> Grid:
        """A grid of blocks over a mask of `queries` x `keys`.

        Raises:
            InvalidArgument: If a size is no whole number of at least 1.
            ShapeError: If the block does not divide the mask.
        """
        sizes = {"queries": queries, "keys": keys, "block": block}
        for name, size in sizes.items():
            whole(where, name, size, least=1)
        for name in ("queries", "keys"):
            if sizes[name] % block:
                raise ShapeError(
                    f"{where}: {name} is {sizes[name]}, it must be a multiple of block = {block}; "
                    "pad it, or choose another block."
                )
        return cls(where, queries // block, keys // block, block)

    @property
    def size(self) -> int:
        """Places of the grid."""
        return self.rows * self.cols

    @property
    def positions(self) -> Int64:
        """The key that each query stands at: the last query at the last key."""
        return np.arange(self.rows, dtype=np.int64) + (self.cols - self.rows)

    @property
    def text(self) -> str:
        return f"{self.rows} x {self.cols}" + (f" blocks of {self.block}" if self.block > 1 else "")

    def visible(self, causal: bool) -> Int64:
        """How many keys, from the first, each query may see."""
        if not causal:
            return np.full(self.rows, self.cols, dtype=np.int64)
        return np.clip(self.positions + 1, 0, self.cols)

    def target(self, sparsity: float) -> int:
        """The entries, or blocks, that a sparsity leaves: `round((1 - sparsity) * rows * cols)`.

        Raises:
            InvalidArgument: If it is not in [0, 1).
        """
        return round((1 - check_sparsity(self.where, sparsity)) * self.size)

    def reached(self, sparsity: float, least: int, most: int, mend: str) -> int:
        """The target of a sparsity, if it lies between the least and the most entries that the kind can have.

        Raises:
            InvalidArgument: If it does not; says which sparsities can be had.
        """
        wanted = self.target(sparsity)
        if least <= wanted <= most:
            return wanted
        low, high = (math.ceil((1 - most / self.size) * 1e5) / 1e5, math.floor((1 - least / self.size) * 1e5) / 1e5)
        can = f"from {max(low, 0.0):g} to {high:g}" if low <= high else f"near {low:g}"
        raise InvalidArgument(
            f"{self.where}: sparsity is {sparsity:g}, which leaves {wanted} of {self.text}, but this kind has from "
            f"{least} to {most} there; choose a sparsity {can}, or {mend}."
        )

    def check_room(self, entries: int) -> None:
        """Refuse a mask that this machine's memory cannot hold.

        Raises:
            InvalidArgument: With the size that it would take.
        """
        need = entries * (_ENTRY_BYTES + (4 * self.block**2 if self.block > 1 else 0))
        have = total_bytes()
        if have and need > have:
            raise InvalidArgument(
                f"{self.where}: {entries} entries of {self.text} take {need / 2**30:.1f} GiB to make, this machine has "
                f"{have / 2**30:.1f} GiB; use a rule, larger blocks or a higher sparsity."
            )

    def finish(self, found: Rows) -> Mask:
        """CSR of ones; with blocks, BSR of blocks that are full of ones."""
        if self.block == 1:
            index: Any = np.uint16 if self.cols <= 65536 else np.int32 if self.cols < 2**31 else np.int64
            ones = np.ones(found.indices.size, dtype=np.float32)
            return CSR((self.rows, self.cols), found.indptr, found.indices.astype(index), ones)
        b = self.block
        ones = np.ones((found.indices.size, b, b), dtype=np.float32)
        return BSR((self.rows * b, self.cols * b), (b, b), found.indptr, found.indices.astype(np.int32), ones)


def whole(where: str, name: str, value: Any, *, least: int = 0) -> int:
    """`value`, if it is a whole number of at least `least`.

    Raises:
        InvalidArgument: If it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise InvalidArgument(f"{where}: {name} is {value!r}, it is a whole number of at least {least}; change it.")
    return int(value)


def check_sparsity(where: str, sparsity: Any) -> float:
    """`sparsity`, if it is a number in [0, 1).

    Raises:
        InvalidArgument: If it is not.
    """
    if isinstance(sparsity, bool) or not isinstance(sparsity, int | float):
        raise InvalidArgument(f"{where}: sparsity is {sparsity!r}, not a number; pass one in [0, 1).")
    if not 0 <= sparsity < 1:
        hint = f"; {sparsity:g} % is written {sparsity / 100:g}" if 1 < sparsity < 100 else ""
        raise InvalidArgument(f"{where}: sparsity is {sparsity:g}, outside [0, 1); pass a fraction such as 0.9{hint}.")
    return float(sparsity)


def one_of(where: str, **given: Any) -> None:
    """Refuse several or none of arguments that say the same thing.

    Raises:
        InvalidArgument: Naming them.
    """
    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        both = f"{' and '.join(names)} are both given" if names else f"none of {', '.join(given)} is given"
        raise InvalidArgument(f"{where}: {both}, the size of the mask follows from one; pass exactly one of them.")


def random_for(where: str, seed: int) -> np.random.Generator:
    """The lots of a kind of mask: another kind draws others from the same seed."""
    return np.random.default_rng([whole(where, "seed", seed), crc32(where.encode())])


def draw(random: np.random.Generator, population: int, count: int) -> Int64:
    """`count` different numbers below `population`, each set as likely as any other, in order.

    Takes memory for `count` numbers, not for `population`, which NumPy's own draw does not.
    """
    if 2 * count > population:
        kept = np.ones(population, dtype=bool)
        kept[draw(random, population, population - count)] = False
        return np.flatnonzero(kept)
    found = np.zeros(0, dtype=np.int64)
    while found.size < count:
        more = random.integers(0, population, size=(count - found.size) * 5 // 4 + 16)
        found = distinct(np.concatenate([found, more]))
    # The set that was drawn has no order, so whichever of its numbers leave, the rest is a fair draw.
    return np.delete(found, random.choice(found.size, found.size - count, replace=False, shuffle=False))


def distinct(numbers: Int64) -> Int64:
    """The different ones of some numbers of at least 0, in order.

    By sorting: `np.unique` of NumPy 2.4 hashes, and takes 3.9 s for two million numbers where this takes 0.05 s.
    """
    ordered = np.sort(numbers)
    found: Int64 = ordered[np.diff(ordered, prepend=-1) != 0]
    return found


def places_of(counts: Int64, ranks: Int64) -> tuple[Int64, Int64]:
    """The row of each rank, and its rank there, where rows of `counts` places are numbered through."""
    ends = np.cumsum(counts)
    rows = np.searchsorted(ends, ranks, side="right")
    return rows, ranks - (ends[rows] - counts[rows])


def rows_from(grid: Grid, rows: Int64, cols: Int64) -> Rows:
    """Places in any order, none twice, as rows."""
    flat = np.sort(rows * grid.cols + cols)
    indptr = np.zeros(grid.rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(flat // grid.cols, minlength=grid.rows), out=indptr[1:])
    return Rows(indptr, flat % grid.cols)


def added(grid: Grid, found: Rows, rows: Int64, cols: Int64) -> Rows:
    """`found` with more places, none of which it has."""
    order = np.lexsort((cols, rows))
    rows, cols = rows[order], cols[order]
    flat = np.repeat(np.arange(grid.rows, dtype=np.int64) * grid.cols, np.diff(found.indptr)) + found.indices
    at = np.searchsorted(flat, rows * grid.cols + cols)
    indptr = found.indptr.copy()
    indptr[1:] += np.cumsum(np.bincount(rows, minlength=grid.rows))
    return Rows(indptr, np.insert(found.indices, at, cols))
