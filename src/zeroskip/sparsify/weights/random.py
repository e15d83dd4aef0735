"""Random pruning: the baseline that every method must beat."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..mask import mask_from_scores
from ..pattern import Pattern
from ..pruner import InputStats, Needs, Pruned, registry, resolve_scope

if TYPE_CHECKING:
    import torch


class Random:
    """Drop entries by lot; the same seed gives the same mask."""

    name = "random"
    summary = "entries by lot; a baseline"
    needs: Needs = "nothing"
    scopes: Sequence[str] = ("layer", "row", "global")

    def scores(self, weight: torch.Tensor, *, seed: int) -> torch.Tensor:
        """Uniform random numbers of the weight's shape."""
        import torch

        generator = torch.Generator().manual_seed(seed)
        return torch.rand(weight.shape, generator=generator).to(weight.device)

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
        scores = self.scores(weight, seed=seed)
        mask = mask_from_scores(scores, sparsity=sparsity, pattern=pattern, scope=resolve_scope(self, scope))
        return Pruned(weight * mask, mask)


registry.add("random", Random())
