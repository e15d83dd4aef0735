"""What the selectors share: queries and keys as they come, means of blocks, and blocks as BSR."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument, ShapeError
from ...formats import BSR, to_numpy
from ._grid import Grid

Float32 = npt.NDArray[np.float32]
Kept = npt.NDArray[np.bool_]


class Inputs(NamedTuple):
    """Queries (heads, n, d) and keys (key heads, m, d) in float32, and whether the caller had heads."""

    q: Float32
    k: Float32
    several: bool

    def key_head(self, head: int) -> int:
        """The key head that a query head reads."""
        return head * len(self.k) // len(self.q)


def check_inputs(where: str, q: Any, k: Any) -> Inputs:
    """Queries and keys that fit each other.

    Raises:
        ShapeError: If their sizes do not.
        InvalidArgument: If one holds NaN or Inf: whether a block is worth computing could not be said.
    """
    found: dict[str, Float32] = {}
    several = False
    for name, array in (("q", q), ("k", k)):
        values = to_numpy(where, name, array).astype(np.float32, copy=False)
        if values.ndim not in (2, 3) or min(values.shape, default=0) < 1:
            raise ShapeError(f"{where}: {name} has shape {values.shape}; pass (n, d) or (heads, n, d), none of them 0.")
        several |= values.ndim == 3
        found[name] = values if values.ndim == 3 else values[None]
        bad = ~np.isfinite(found[name])
        if bad.any():
            head, row, at = (int(place[0]) for place in np.nonzero(bad))
            value = found[name][head, row, at]
            raise InvalidArgument(
                f"{where}: {name} is {value} in head {head}, row {row}; a block that it touches has no score: check "
                "the model, or use a mask that follows from sizes."
            )
    a, b = found["q"], found["k"]
    if a.shape[2] != b.shape[2]:
        raise ShapeError(f"{where}: k has {b.shape[2]} features a row but q has {a.shape[2]}; pass keys that fit.")
    if a.shape[0] % b.shape[0]:
        raise ShapeError(
            f"{where}: q has {a.shape[0]} heads and k has {b.shape[0]}, which does not divide them; pass heads that do."
        )
    return Inputs(a, b, several)


def share(where: str, name: str, value: Any, *, zero: bool = False) -> float:
    """`value`, if it is a number in (0, 1], or from 0 on.

    Raises:
        InvalidArgument: If it is not.
    """
    good = isinstance(value, int | float | np.floating) and not isinstance(value, bool)
    if not good or not (0 <= value <= 1 if zero else 0 < value <= 1):
        raise InvalidArgument(f"{where}: {name} is {value!r}, it is a share in {'[' if zero else '('}0, 1]; change it.")
    return float(value)


def scores(q: npt.NDArray[Any], k: npt.NDArray[Any]) -> Float32:
    """Scaled products, as attention has them."""
    found: Float32 = (q @ k.T) * np.float32(1 / math.sqrt(q.shape[1]))
    return found


def softmax(values: Float32, seen: Kept) -> npt.NDArray[np.float64]:
    """Softmax over the seen places of each row; a row that sees nothing is zeros."""
    masked = np.where(seen, values, -np.inf).astype(np.float64)
    top = masked.max(axis=1, keepdims=True)
    weights = np.exp(masked - np.where(np.isfinite(top), top, 0.0))
    total = weights.sum(axis=1, keepdims=True)
    found: npt.NDArray[np.float64] = weights / np.where(total > 0, total, 1.0)
    return found


def block_means(rows: Float32, block: int) -> Float32:
    """The mean of each block of rows, (n / block, d)."""
    found: Float32 = rows.reshape(-1, block, rows.shape[1]).mean(axis=1, dtype=np.float32)
    return found


def visible_blocks(grid: Grid, causal: bool) -> Kept:
    """The blocks that hold a place that may be seen."""
    return np.arange(grid.cols) < grid.visible(causal)[:, None]


def own_blocks(grid: Grid) -> Kept:
    """The blocks on the diagonal: where a block of queries meets its own keys."""
    found: Kept = np.arange(grid.cols) == grid.positions[:, None]
    return found


def blocks_of(grid: Grid, kept: Kept) -> BSR:
    """BSR of the blocks that are kept, full of ones."""
    indptr = np.zeros(grid.rows + 1, dtype=np.int64)
    np.cumsum(kept.sum(axis=1), out=indptr[1:])
    grid.check_room(int(indptr[-1]))
    ones = np.ones((int(indptr[-1]), grid.block, grid.block), dtype=np.float32)
    shape = (grid.rows * grid.block, grid.cols * grid.block)
    return BSR(shape, (grid.block, grid.block), indptr, np.nonzero(kept)[1].astype(np.int32), ones)


def by_head(
    where: str, q: Any, k: Any, block: int, select: Callable[[Grid, Float32, Float32], Kept]
) -> BSR | list[BSR]:
    """`select` for each head: one BSR, or a list of them where the caller has heads."""
    inputs = check_inputs(where, q, k)
    grid = Grid.of(where, inputs.q.shape[1], inputs.k.shape[1], block)
    found = [
        blocks_of(grid, select(grid, queries, inputs.k[inputs.key_head(head)])) for head, queries in enumerate(inputs.q)
    ]
    return found if inputs.several else found[0]
