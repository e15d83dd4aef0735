"""Wanda: weights times the norms of what they multiply."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..mask import mask_from_scores
from ..pattern import Pattern
from ..pruner import InputStats, Needs, Pruned, need_stats, registry, resolve_scope

if TYPE_CHECKING:
    import torch


class Wanda:
    """Score = |W_ij| * ||X_j||_2, compared within each output row; the weights that stay are not changed.

    Source: Sun et al., "A Simple and Effective Pruning Approach for Large Language Models", ICLR 2024, section 3.
    """

    name = "wanda"
    summary = "|W| times the norm of the input feature, row by row"
    needs: Needs = "norms"
    scopes: Sequence[str] = ("row", "layer")

    def prune(
        self,
        weight: torch.Tensor,
        stats: InputStats | None,
        *,
        sparsity: float | None = None,
        pattern: Pattern | str = "unstructured",
        scope: str | None = None,
        seed: int = 0,
    ) -> Pruned:
        """See `sparsify.Pruner`."""
        stats = need_stats(stats, where="wanda", features=weight.shape[1])
        scores = weight.abs() * stats.squares.sqrt()
        mask = mask_from_scores(scores, sparsity=sparsity, pattern=pattern, scope=resolve_scope(self, scope))
        return Pruned(weight * mask, mask)


registry.add("wanda", Wanda())
