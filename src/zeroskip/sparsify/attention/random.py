"""Random masks: any key, by lot."""

from __future__ import annotations

from ._grid import Grid, Mask, check_sparsity, draw, places_of, random_for, rows_from
from ._method import MaskMethod, registry


class Random(MaskMethod):
    """Every set of entries of the asked size is as likely as any other, within the triangle if causal.

    A row may come out empty: its output is zeros.

    Source: the random part of Zaheer et al., "Big Bird: Transformers for Longer Sequences", NeurIPS 2020, alone.
    """

    name = "random"
    summary = "keys by lot"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; the sparsity must be given."""
        grid = Grid.of("random mask", queries, keys, block)
        random = random_for(grid.where, seed)
        wanted = _wanted(grid, check_sparsity(grid.where, sparsity), causal)
        grid.check_room(wanted)
        visible = grid.visible(causal)
        return grid.finish(rows_from(grid, *places_of(visible, draw(random, int(visible.sum()), wanted))))

    def entries(self, queries: int, keys: int, *, sparsity: float, causal: bool = False, block: int = 1) -> int:
        """See `MaskMethod`."""
        return _wanted(Grid.of("random mask", queries, keys, block), sparsity, causal)


def _wanted(grid: Grid, sparsity: float, causal: bool) -> int:
    return grid.reached(sparsity, 0, int(grid.visible(causal).sum()), "leave causal out")


registry.add("random", Random())
