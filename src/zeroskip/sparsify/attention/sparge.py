"""SpargeAttn: pooled scores up to a share of their sum, where a mean stands for its block at all."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ...formats import BSR
from ._grid import Grid
from ._inputs import Float32, Kept, block_means, by_head, own_blocks, scores, share, softmax, visible_blocks
from ._method import Selector, selectors


class Sparge(Selector):
    """Each row of blocks keeps the largest softmax weights of the block means until they sum to `mass`.

    A mean says little about a block whose rows point in different directions. So each block is looked at for itself
    first: where the mean cosine between two of its rows is below `similarity`, a block of queries keeps every key
    block, and a block of keys is kept by every row; its weight is left out of the softmax. `similarity` of None skips
    that. The block on the diagonal is always kept.

    Source: Zhang et al., "SpargeAttn: Accurate Sparse Attention Accelerating Any Model Inference", ICML 2025, its first
    stage; the second one skips products inside of the kernel.
    """

    name = "sparge"
    summary = "block weights up to a share of their sum, blocks of unlike rows always (SpargeAttn)"

    def select(
        self,
        q: Any,
        k: Any,
        *,
        block: int = 64,
        mass: float = 0.9,
        similarity: float | None = 0.5,
        causal: bool = False,
    ) -> BSR | list[BSR]:
        """See `Selector`."""
        where = "sparge mask"
        share(where, "mass", mass)
        if similarity is not None:
            share(where, "similarity", similarity, zero=True)
        return by_head(where, q, k, block, lambda grid, a, b: _chosen(grid, a, b, mass, similarity, causal))


def _chosen(grid: Grid, q: Float32, k: Float32, mass: float, similarity: float | None, causal: bool) -> Kept:
    seen = visible_blocks(grid, causal)
    like_q = self_similarity(q, grid.block) >= similarity if similarity is not None else np.ones(grid.rows, dtype=bool)
    like_k = self_similarity(k, grid.block) >= similarity if similarity is not None else np.ones(grid.cols, dtype=bool)
    weights = softmax(scores(block_means(q, grid.block), block_means(k, grid.block)), seen & like_k)
    kept = up_to_mass(weights, mass)
    return (kept | own_blocks(grid) | ~like_q[:, None] | ~like_k) & seen


def up_to_mass(weights: npt.NDArray[np.float64], mass: float) -> Kept:
    """In each row the largest weights until their sum reaches `mass`; the one that reaches it is kept."""
    order = np.argsort(-weights, axis=1, kind="stable")
    sorted_weights = np.take_along_axis(weights, order, axis=1)
    before = np.cumsum(sorted_weights, axis=1) - sorted_weights
    kept = np.zeros(weights.shape, dtype=bool)
    np.put_along_axis(kept, order, (before < mass) & (sorted_weights > 0), axis=1)
    return kept


def self_similarity(rows: Float32, block: int) -> Float32:
    """The mean cosine between any two rows of each block, a row and itself included.

    The mean over pairs is the squared length of the mean of the rows scaled to length 1: no matrix of pairs is needed.
    A row of zeros has a cosine of 0 with every other.
    """
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    units = (rows / np.where(length > 0, length, 1)).astype(np.float32)
    found: Float32 = np.square(block_means(units, block)).sum(axis=1)
    return found


selectors.add("sparge", Sparge())
