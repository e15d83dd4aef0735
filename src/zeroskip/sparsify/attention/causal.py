"""Causal: the query itself and what comes before it."""

from __future__ import annotations

import numpy as np

from ..._errors import InvalidArgument
from ...ops.rules import Rule
from ._grid import Grid, Mask, draw, places_of, random_for, rows_from
from ._method import MaskMethod, registry
from ._rules import rule_rows


class Causal(MaskMethod):
    """All keys up to the query. With a sparsity the diagonal stays and the rest of the triangle is thinned by lot.

    Source: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, the mask of its decoder.
    """

    name = "causal"
    summary = "keys up to the query"
    ruled = True

    def make(
        self,
        queries: int,
        keys: int,
        *,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = True,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; without a sparsity the whole triangle."""
        grid = Grid.of("causal mask", queries, keys, block)
        random = random_for(grid.where, seed)
        _is_causal(causal)
        if sparsity is None:
            return grid.finish(rule_rows(Rule(causal=True), grid))
        wanted = _wanted(grid, sparsity)
        grid.check_room(wanted)
        before = np.maximum(grid.visible(True) - 1, 0)
        own = np.flatnonzero(grid.positions >= 0)
        rows, cols = places_of(before, draw(random, int(before.sum()), wanted - own.size))
        return grid.finish(rows_from(grid, np.concatenate([rows, own]), np.concatenate([cols, grid.positions[own]])))

    def entries(self, queries: int, keys: int, *, sparsity: float, causal: bool = True, block: int = 1) -> int:
        """See `MaskMethod`."""
        grid = Grid.of("causal mask", queries, keys, block)
        _is_causal(causal)
        return _wanted(grid, sparsity)

    def rule(self, queries: int, keys: int, *, sparsity: float | None = None, causal: bool = True) -> Rule:
        """The triangle; a thinned one is no rule."""
        Grid.of("causal mask", queries, keys)
        _is_causal(causal)
        if sparsity is not None:
            raise InvalidArgument(
                f"causal mask: sparsity is {sparsity!r}, a thinned triangle is no rule; leave it out, or use make."
            )
        return Rule(causal=True)


def _wanted(grid: Grid, sparsity: float) -> int:
    own = int((grid.positions >= 0).sum())
    return grid.reached(sparsity, own, int(grid.visible(True).sum()), "another kind of mask")


def _is_causal(causal: bool) -> None:
    if not causal:
        raise InvalidArgument("causal mask: causal is False, this kind is causal; leave it out.")


registry.add("causal", Causal())
