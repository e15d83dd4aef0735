"""Dilated window: every so many keys near the query."""

from __future__ import annotations

from ...ops.rules import Rule
from ._grid import Grid, Mask, whole
from ._method import Growing, registry
from ._rules import Family, family_mask, family_rule, reach


class Dilated(Growing):
    """Keys at most `window` away whose distance is a multiple of `dilation`: a window with gaps, which sees further.

    For a sparsity the window grows by steps of `dilation`, as in `Window`; no more than about one in `dilation` entries
    can be there.

    Source: Beltagy et al., "Longformer: The Long-Document Transformer", 2020, its dilated window; the strided pattern
    of Child et al., "Generating Long Sequences with Sparse Transformers", 2019, is one without an end.
    """

    name = "dilated"
    summary = "every so many keys within a window"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        window: int | None = None,
        dilation: int = 2,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; give `window` or `sparsity`."""
        grid = Grid.of("dilated mask", queries, keys, block)
        family = _family(grid, dilation, causal)
        return family_mask(family, grid, _steps(grid, window, dilation), sparsity, name="window", seed=seed)

    def rule(
        self,
        queries: int,
        keys: int,
        *,
        window: int | None = None,
        dilation: int = 2,
        sparsity: float | None = None,
        causal: bool = False,
    ) -> Rule:
        """See `MaskMethod`; give `window` or `sparsity`."""
        grid = Grid.of("dilated mask", queries, keys)
        family = _family(grid, dilation, causal)
        return family_rule(family, grid, _steps(grid, window, dilation), sparsity, name="window")

    def family(self, grid: Grid, causal: bool) -> Family:
        """See `Growing`."""
        return _family(grid, 2, causal)


def _family(grid: Grid, dilation: int, causal: bool) -> Family:
    whole(grid.where, "dilation", dilation, least=1)
    return Family(
        lambda size: Rule(window=size * dilation, dilation=dilation, causal=causal),
        reach(grid) // dilation,
        "a smaller dilation",
    )


def _steps(grid: Grid, window: int | None, dilation: int) -> int | None:
    return None if window is None else whole(grid.where, "window", window) // dilation


registry.add("dilated", Dilated())
