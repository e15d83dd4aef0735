"""Vertical-slash: columns and diagonals that the last queries point to."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...formats import BSR
from ._grid import Grid, whole
from ._inputs import Float32, Kept, by_head, own_blocks, scores, softmax, visible_blocks
from ._method import Selector, selectors


class VerticalSlash(Selector):
    """The weights of the last queries, summed down columns and along diagonals, choose which of these all queries keep.

    The `vertical` best columns and the `slash` best diagonals (distances between query and key) are kept, and with them
    every block that they cross; the block on the diagonal always. The weights are those of `last` queries, all of them
    if there are fewer. Equal sums go to the earlier column and the shorter distance.

    Source: Jiang et al., "MInference 1.0: Accelerating Pre-filling for Long-Context LLMs via Dynamic Sparse Attention",
    NeurIPS 2024, its vertical-slash heads. There columns stay single in the kernel; here they count as blocks.
    """

    name = "vertical_slash"
    summary = "columns and diagonals that the last queries weigh most, as blocks (MInference)"

    def select(
        self,
        q: Any,
        k: Any,
        *,
        block: int = 64,
        vertical: int = 128,
        slash: int = 128,
        last: int = 64,
        causal: bool = True,
    ) -> BSR | list[BSR]:
        """See `Selector`; causal unless said otherwise, as in the paper."""
        where = "vertical_slash mask"
        whole(where, "vertical", vertical)
        whole(where, "slash", slash)
        whole(where, "last", last, least=1)
        return by_head(where, q, k, block, lambda grid, a, b: _crossed(grid, a, b, vertical, slash, last, causal))


def _crossed(grid: Grid, q: Float32, k: Float32, vertical: int, slash: int, last: int, causal: bool) -> Kept:
    count = min(last, len(q))
    at = np.arange(len(q) - count, len(q)) + (len(k) - len(q))
    away = at[:, None] - np.arange(len(k))
    weights = softmax(scores(q[-count:], k), away >= 0 if causal else np.ones(away.shape, dtype=bool))
    columns = _best(weights.sum(axis=0), vertical)
    # Distances run from that of the first query and the last key, which is negative, to that of the last and the first.
    farthest = int(away.min())
    summed = np.bincount((away - farthest).ravel(), weights.ravel(), minlength=len(k) + count - 1)
    along = summed.astype(np.float64)
    preferred = np.argsort(np.abs(np.arange(along.size) + farthest), kind="stable")
    distances = preferred[_best(along[preferred], slash)] + farthest
    kept = own_blocks(grid)
    kept[:, np.unique(columns // grid.block)] = True
    for distance in distances:
        _mark(kept, grid, int(distance))
    return kept & visible_blocks(grid, causal)


def _best(sums: npt.NDArray[np.float64], count: int) -> npt.NDArray[np.int64]:
    """The places of the largest sums above 0."""
    order = np.argsort(-sums, kind="stable")[:count]
    return order[sums[order] > 0]


def _mark(kept: Kept, grid: Grid, distance: int) -> None:
    """Keep the blocks that the diagonal at a distance crosses: one or two in each row of blocks."""
    first = np.arange(grid.rows) * grid.block + (grid.cols - grid.rows) * grid.block - distance
    for column in (first, first + grid.block - 1):
        inside = (column >= 0) & (column < grid.cols * grid.block)
        kept[np.flatnonzero(inside), column[inside] // grid.block] = True


selectors.add("vertical_slash", VerticalSlash())
