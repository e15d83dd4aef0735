"""Longformer: a sliding window and global tokens."""

from __future__ import annotations

from ...ops.rules import Rule
from ._grid import Grid, Mask, whole
from ._method import Growing, registry
from ._rules import Family, family_mask, family_rule, reach


class Longformer(Growing):
    """A window of `window` keys on both sides, with gaps if asked for, and `global_tokens` that see all and are seen.

    For a sparsity the window grows as in `Window`; the global tokens stay as many as they are.

    Source: Beltagy et al., "Longformer: The Long-Document Transformer", 2020. One global token is what it has in
    classification; its question answering has one for each token of the question.
    """

    name = "longformer"
    summary = "a window and global tokens"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        window: int | None = None,
        global_tokens: int = 1,
        dilation: int = 1,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; give `window` or `sparsity`."""
        grid = Grid.of("longformer mask", queries, keys, block)
        family = _family(grid, global_tokens, dilation, causal)
        return family_mask(family, grid, _steps(grid, window, dilation), sparsity, name="window", seed=seed)

    def rule(
        self,
        queries: int,
        keys: int,
        *,
        window: int | None = None,
        global_tokens: int = 1,
        dilation: int = 1,
        sparsity: float | None = None,
        causal: bool = False,
    ) -> Rule:
        """See `MaskMethod`; give `window` or `sparsity`."""
        grid = Grid.of("longformer mask", queries, keys)
        family = _family(grid, global_tokens, dilation, causal)
        return family_rule(family, grid, _steps(grid, window, dilation), sparsity, name="window")

    def family(self, grid: Grid, causal: bool) -> Family:
        """See `Growing`."""
        return _family(grid, 1, 1, causal)


def _family(grid: Grid, global_tokens: int, dilation: int, causal: bool) -> Family:
    whole(grid.where, "global_tokens", global_tokens)
    whole(grid.where, "dilation", dilation, least=1)
    return Family(
        lambda size: Rule(window=size * dilation, dilation=dilation, global_tokens=global_tokens, causal=causal),
        reach(grid) // dilation,
        f"another number than global_tokens = {global_tokens}",
    )


def _steps(grid: Grid, window: int | None, dilation: int) -> int | None:
    return None if window is None else whole(grid.where, "window", window) // dilation


registry.add("longformer", Longformer())
