"""What a mask holds, in numbers: its rows, and how well blocks would fit it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument
from ...formats import SparseMatrix
from ...ops.rules import Rule
from ._grid import Grid, Int64, distinct
from ._rules import rule_counts

BLOCKS = (16, 32, 64)


def describe(mask: SparseMatrix | Rule, queries: int | None = None, keys: int | None = None) -> dict[str, Any]:
    """Shape, entries, sparsity, how rows differ, and the fill of blocks.

    Args:
        mask: Any format; zeros that a block stores do not count. Or a rule, of which nothing is made: its counts follow
            from the sizes.
        queries: Of a rule.
        keys: Of a rule.
    Returns:
        shape, nnz, sparsity; row_mean, row_std, row_min, row_max, empty_rows: entries of a row; block_fill: by block
        size, the share of entries in the square blocks that hold any, None where there are none (1 means that blocks
        waste nothing); blocks: how many those are.
    """
    if isinstance(mask, Rule):
        if queries is None or keys is None:
            raise InvalidArgument("describe: queries or keys is None, a rule has no sizes of its own; pass both.")
        grid = Grid.of("describe", queries, keys)
        counts, blocks = rule_counts(mask, grid), {size: _rule_blocks(mask, grid, size) for size in BLOCKS}
        shape = (queries, keys)
    else:
        rows, cols, _ = mask.to_coo().entries()
        shape = mask.shape
        counts = np.bincount(rows, minlength=shape[0])
        blocks = _blocks(rows, cols, shape)
    nnz = int(counts.sum())
    return {
        "shape": shape,
        "nnz": nnz,
        "sparsity": 1 - nnz / (shape[0] * shape[1]),
        "row_mean": float(counts.mean()),
        "row_std": float(counts.std()),
        "row_min": int(counts.min()),
        "row_max": int(counts.max()),
        "empty_rows": int((counts == 0).sum()),
        "block_fill": {str(size): nnz / held[1] if held[1] else None for size, held in blocks.items()},
        "blocks": {str(size): held[0] for size, held in blocks.items()},
    }


def _blocks(rows: Int64, cols: Int64, shape: tuple[int, int]) -> dict[int, tuple[int, int]]:
    """For each size the blocks that hold an entry, and the places in them; those at the edge may be smaller."""
    found = {}
    down, right, size = rows, cols, 1
    for block in BLOCKS:  # each size divides the next one: the blocks of one are the entries of the other
        across = -(-shape[1] // block)
        flat = distinct((down // (block // size)) * across + right // (block // size))
        down, right, size = flat // across, flat % across, block
        high = np.minimum(shape[0] - down * block, block)
        wide = np.minimum(shape[1] - right * block, block)
        found[block] = (flat.size, int((high * wide).sum()))
    return found


def _rule_blocks(rule: Rule, grid: Grid, block: int) -> tuple[int, int]:
    """The same for a rule, a row of blocks at a time and without entries.

    The keys that a block of queries sees through the window are one stretch, or with a dilation above 1 those whose
    distance to some query of the block fits; which key blocks are met is asked of all distances between two blocks.
    """
    at = grid.positions
    starts = np.arange(0, grid.rows, block)
    ends = np.minimum(starts + block, grid.rows)
    blocks = places = 0
    for start, end in zip(starts, ends, strict=True):
        first, last = int(at[start]), int(at[end - 1])
        across = _near(rule, first, last, grid.cols, block)
        widths = np.minimum(across + block, grid.cols) - across
        low, high = first - (across + widths - 1), last - across  # distances, query less key: all between occur
        if rule.causal:
            low = np.maximum(low, 0)
        near_low = low if rule.window is None else np.maximum(low, -rule.window)
        near_high = high if rule.window is None else np.minimum(high, rule.window)
        # A multiple of the dilation lies between.
        met = (near_high - near_high % rule.dilation >= near_low) & rule.windowed
        met |= _global_meets(rule, first, last, across)
        blocks += int(met.sum())
        places += int(widths[met].sum()) * int(end - start)
    return blocks, places


def _near(rule: Rule, first: int, last: int, cols: int, block: int) -> Int64:
    """The first keys of the blocks that a row of blocks may meet: with a window, these are few."""
    if rule.window is None or first < rule.global_tokens:
        return np.arange(0, cols, block, dtype=np.int64)
    begin = max(first - rule.window, 0) // block * block
    end = min(last + rule.window + 1, cols)
    shared = min(-(-min(rule.global_tokens, cols) // block) * block, begin)
    both = (np.arange(0, shared, block, dtype=np.int64), np.arange(begin, end, block, dtype=np.int64))
    return np.concatenate(both)


def _global_meets(rule: Rule, first: int, last: int, across: Int64) -> npt.NDArray[np.bool_]:
    """Whether global tokens reach a block: global keys that the last query may see, or global queries that see it."""
    end = min(last, rule.global_tokens - 1)  # the last global query among these
    by_key = across < rule.global_tokens
    by_query = np.full(across.shape, first <= end)
    if rule.causal:
        by_key &= across <= last
        by_query &= across <= end
    found: npt.NDArray[np.bool_] = by_key | by_query
    return found
