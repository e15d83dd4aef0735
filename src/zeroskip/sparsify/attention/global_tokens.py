"""Global tokens: a few that see all and are seen by all."""

from __future__ import annotations

from ...ops.rules import Rule
from ._grid import Grid, Mask, whole
from ._method import Growing, registry
from ._rules import Family, family_mask, family_rule


class GlobalTokens(Growing):
    """The first `global_tokens` keys are seen by all and the first queries see all; every query sees itself besides.

    For a sparsity the tokens grow in number; the entries that are still lacking are drawn from the row and the column
    of the next token.

    Source: Ainslie et al., "ETC: Encoding Long and Structured Inputs in Transformers", 2020; Beltagy et al.,
    "Longformer: The Long-Document Transformer", 2020, where they stand beside a window.
    """

    name = "global"
    summary = "the first tokens see all and are seen by all"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        global_tokens: int | None = None,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; give `global_tokens` or `sparsity`."""
        grid = Grid.of("global mask", queries, keys, block)
        family = _family(grid, global_tokens, causal)
        return family_mask(family, grid, global_tokens, sparsity, name="global_tokens", seed=seed)

    def rule(
        self,
        queries: int,
        keys: int,
        *,
        global_tokens: int | None = None,
        sparsity: float | None = None,
        causal: bool = False,
    ) -> Rule:
        """See `MaskMethod`; give `global_tokens` or `sparsity`."""
        grid = Grid.of("global mask", queries, keys)
        return family_rule(_family(grid, global_tokens, causal), grid, global_tokens, sparsity, name="global_tokens")

    def family(self, grid: Grid, causal: bool) -> Family:
        """See `Growing`."""
        return _family(grid, None, causal)


def _family(grid: Grid, global_tokens: int | None, causal: bool) -> Family:
    if global_tokens is not None:
        whole(grid.where, "global_tokens", global_tokens)
    return Family(lambda size: Rule(window=0, global_tokens=size, causal=causal), grid.cols, "another kind of mask")


registry.add("global", GlobalTokens())
