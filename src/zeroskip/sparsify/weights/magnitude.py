"""Magnitude pruning: the smallest weights go. Needs no data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..mask import mask_from_scores
from ..pattern import Pattern
from ..pruner import InputStats, Needs, Pruned, registry, resolve_scope

if TYPE_CHECKING:
    import torch


class Magnitude:
    """Score = |W|, over the layer, each row, or all layers."""

    name = "magnitude"
    summary = "smallest |W| first; no calibration"
    needs: Needs = "nothing"
    scopes: Sequence[str] = ("layer", "row", "global")

    def scores(self, weight: torch.Tensor, *, seed: int = 0) -> torch.Tensor:
        """|W|; the seed does nothing."""
        return weight.abs()

    def prune(
        self,
        weight: torch.Tensor,
        stats: InputStats | None = None,
        *,
        sparsity: float | None = None,
        pattern: Pattern | str = "unstructured",
        scope: str | None = None,
        seed: int = 0,
    ) -> Pruned:
        """See `sparsify.Pruner`."""
        mask = mask_from_scores(weight.abs(), sparsity=sparsity, pattern=pattern, scope=resolve_scope(self, scope))
        return Pruned(weight * mask, mask)


registry.add("magnitude", Magnitude())
