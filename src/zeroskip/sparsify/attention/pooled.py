"""Pooled scores: the blocks whose means fit best."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...formats import BSR
from ._grid import Grid, whole
from ._inputs import Float32, Kept, block_means, by_head, own_blocks, scores, share, visible_blocks
from ._method import Selector, selectors


class Pooled(Selector):
    """Queries and keys are averaged block by block; each row of blocks keeps the `keep` best scores of the means.

    The block on the diagonal is always among them. `keep` is a share of the blocks that a row may see, rounded up, or a
    number of blocks. Equal scores go to the earlier block.

    Source: Gao et al., "SeerAttention: Learning Intrinsic Sparse Attention in Your LLMs", 2024. Its gate is learned on
    top of pooled queries and keys; this is what it starts from, the pooled scores themselves, and needs no training.
    """

    name = "pooled"
    summary = "the best blocks of each row by scores of mean queries and keys (SeerAttention without its learned gate)"

    def select(
        self, q: Any, k: Any, *, block: int = 64, keep: float | int = 0.25, causal: bool = False
    ) -> BSR | list[BSR]:
        """See `Selector`."""
        where = "pooled mask"
        if isinstance(keep, float):
            share(where, "keep", keep)
        else:
            whole(where, "keep", keep, least=1)
        return by_head(where, q, k, block, lambda grid, a, b: _best(grid, a, b, keep, causal))


def _best(grid: Grid, q: Float32, k: Float32, keep: float | int, causal: bool) -> Kept:
    found = scores(block_means(q, grid.block), block_means(k, grid.block))
    seen, own = visible_blocks(grid, causal), own_blocks(grid)
    found = np.where(seen, np.where(own, np.float32(np.inf), found), np.float32(-np.inf))
    order = np.argsort(-found, axis=1, kind="stable")
    room = seen.sum(axis=1)
    counts = np.array([math.ceil(keep * int(n)) for n in room]) if isinstance(keep, float) else np.minimum(keep, room)
    kept = np.zeros(found.shape, dtype=bool)
    np.put_along_axis(kept, order, np.arange(grid.cols) < counts[:, None], axis=1)
    return kept


selectors.add("pooled", Pooled())
