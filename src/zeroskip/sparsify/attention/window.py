"""Sliding window: keys near the query."""

from __future__ import annotations

from ...ops.rules import Rule
from ._grid import Grid, Mask, whole
from ._method import Growing, registry
from ._rules import Family, family_mask, family_rule, reach


class Window(Growing):
    """Keys at most `window` away, on both sides (or, causal, before the query).

    For a sparsity the window grows until the next step would be too much; the entries that are still lacking are drawn
    from that step: the two diagonals at the next distance.

    Source: Beltagy et al., "Longformer: The Long-Document Transformer", 2020, its sliding window; Child et al.,
    "Generating Long Sequences with Sparse Transformers", 2019, for the causal one.
    """

    name = "window"
    summary = "keys at most so far away"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        window: int | None = None,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; give `window` or `sparsity`."""
        grid = Grid.of("window mask", queries, keys, block)
        return family_mask(_family(grid, window, causal), grid, window, sparsity, name="window", seed=seed)

    def rule(
        self, queries: int, keys: int, *, window: int | None = None, sparsity: float | None = None, causal: bool = False
    ) -> Rule:
        """See `MaskMethod`; give `window` or `sparsity`."""
        grid = Grid.of("window mask", queries, keys)
        return family_rule(_family(grid, window, causal), grid, window, sparsity, name="window")

    def family(self, grid: Grid, causal: bool) -> Family:
        """See `Growing`."""
        return _family(grid, None, causal)


def _family(grid: Grid, window: int | None, causal: bool) -> Family:
    if window is not None:
        whole(grid.where, "window", window)
    return Family(lambda size: Rule(window=size, causal=causal), reach(grid), "another kind of mask")


registry.add("window", Window())
