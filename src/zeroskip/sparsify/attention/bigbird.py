"""BigBird: a window, global tokens, and random keys for every query."""

from __future__ import annotations

import numpy as np

from ..._errors import InvalidArgument
from ...ops.rules import Rule
from ._grid import Grid, Int64, Mask, Rows, added, check_sparsity, draw, random_for, whole
from ._method import MaskMethod, registry
from ._rules import reach, rule_counts, rule_rows

# What the base model of the paper has in blocks of 64 for each block of queries: three in the window, two global ones,
# three random ones. Of the entries for a sparsity each part gets such a share.
_WINDOW, _GLOBAL, _RANDOM = 3, 2, 3
_ALL = _WINDOW + _GLOBAL + _RANDOM


class BigBird(MaskMethod):
    """`window` keys on both sides, `global_tokens` that see all and are seen by all, and `random_keys` more by lot.

    For a sparsity the entries are shared out as in the paper's base model, 3 parts window, 2 global, 3 random, unless
    window or global_tokens are given; the random part is what then lacks, so that the sum is exact. Every query gets
    the same number of random keys, but for one more here and there, and for rows that have no free key left.

    Source: Zaheer et al., "Big Bird: Transformers for Longer Sequences", NeurIPS 2020. Its own implementation works on
    blocks: `make(4096, 4096, block=64)`.
    """

    name = "bigbird"
    summary = "a window, global tokens and random keys"

    def make(
        self,
        queries: int,
        keys: int,
        *,
        window: int | None = None,
        global_tokens: int | None = None,
        random_keys: int | None = None,
        sparsity: float | None = None,
        seed: int = 0,
        causal: bool = False,
        block: int = 1,
    ) -> Mask:
        """See `MaskMethod`; without a sparsity window is 1, global_tokens 2, random_keys 3: the paper's, in blocks."""
        grid = Grid.of("bigbird mask", queries, keys, block)
        random = random_for(grid.where, seed)
        for name, size in (("window", window), ("global_tokens", global_tokens), ("random_keys", random_keys)):
            if size is not None:
                whole(grid.where, name, size)
        if sparsity is not None and random_keys is not None:
            raise InvalidArgument(
                f"{grid.where}: random_keys and sparsity are both given, one follows from the other; leave one out."
            )
        if sparsity is None:
            base = Rule(
                window=_WINDOW // 2 if window is None else window,
                global_tokens=_GLOBAL if global_tokens is None else global_tokens,
                causal=causal,
            )
            more = np.minimum(_RANDOM if random_keys is None else random_keys, _free(base, grid))
        else:
            base = _base(grid, sparsity, window, global_tokens, causal)
            more = _shared_out(_free(base, grid), _lacking(base, grid, sparsity), random)
        found = rule_rows(base, grid)
        grid.check_room(found.indices.size + int(more.sum()))
        return grid.finish(added(grid, found, *_drawn(found, _free(base, grid), more, random)))

    def entries(self, queries: int, keys: int, *, sparsity: float, causal: bool = False, block: int = 1) -> int:
        """See `MaskMethod`."""
        grid = Grid.of("bigbird mask", queries, keys, block)
        base = _base(grid, sparsity, None, None, causal)
        return int(rule_counts(base, grid).sum()) + _lacking(base, grid, sparsity)


def _base(grid: Grid, sparsity: float, window: int | None, global_tokens: int | None, causal: bool) -> Rule:
    """Window and global tokens for a sparsity: the global ones take their share, the window fills up to both shares."""
    wanted = grid.target(check_sparsity(grid.where, sparsity))
    if global_tokens is None:
        global_tokens = max(1, wanted * _GLOBAL // (_ALL * (grid.rows + grid.cols)))
    rule = Rule(window=window or 0, global_tokens=global_tokens, causal=causal)
    if window is not None:
        return rule
    most = wanted * (_WINDOW + _GLOBAL) // _ALL
    low, high = 0, reach(grid)
    while low < high:
        middle = (low + high + 1) // 2
        rule = Rule(window=middle, global_tokens=global_tokens, causal=causal)
        low, high = (middle, high) if rule_counts(rule, grid).sum() <= most else (low, middle - 1)
    return Rule(window=low, global_tokens=global_tokens, causal=causal)


def _lacking(base: Rule, grid: Grid, sparsity: float) -> int:
    """How many random keys bring the mask to its sparsity."""
    least, most = int(rule_counts(base, grid).sum()), int(grid.visible(base.causal).sum())
    mend = f"another size than window = {base.window}, global_tokens = {base.global_tokens}"
    return grid.reached(sparsity, least, most, mend) - least


def _free(base: Rule, grid: Grid) -> Int64:
    """How many keys of each row are seen by no part of the rule, but may be."""
    found: Int64 = grid.visible(base.causal) - rule_counts(base, grid)
    return found


def _shared_out(free: Int64, count: int, random: np.random.Generator) -> Int64:
    """`count` keys over the rows, the same for each as far as it has room; what does not divide goes by lot."""
    low, high = 0, int(free.max())
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(np.minimum(free, middle).sum()) <= count else (low, middle - 1)
    more = np.minimum(free, low)
    left = count - int(more.sum())
    if left:
        roomy = np.flatnonzero(free > low)
        more[roomy[draw(random, roomy.size, left)]] += 1
    return more


def _drawn(found: Rows, free: Int64, more: Int64, random: np.random.Generator) -> tuple[Int64, Int64]:
    """`more` keys for each row, by lot from those that the row has not.

    A number below `free` is drawn and counted off among the absent columns: c entries at or before an absent column of
    rank r put it at r + c, and entry number e (from 0) is before it when its column less e is at most r.
    """
    rows, cols = np.repeat(np.arange(more.size, dtype=np.int64), more), []
    for row in np.flatnonzero(more):
        own = found.indices[found.indptr[row] : found.indptr[row + 1]]
        ranks = draw(random, int(free[row]), int(more[row]))
        cols.append(ranks + np.searchsorted(own - np.arange(own.size), ranks, side="right"))
    return rows, np.concatenate(cols) if cols else np.zeros(0, dtype=np.int64)


registry.add("bigbird", BigBird())
