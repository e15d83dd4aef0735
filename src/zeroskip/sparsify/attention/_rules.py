"""Rules as masks: counts without entries, entries without the matrix, and the rule that fits a sparsity.

A row of a rule is two runs: keys that are seen as global ones, from the first on, and steps of `dilation` through the
window behind them. Counts follow from the ends of the runs, so that the rule for a sparsity is found by bisection over
sums of n numbers, whatever the mask holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..._errors import InvalidArgument
from ...ops.rules import Rule
from ._grid import Grid, Int64, Mask, Rows, added, distinct, draw, one_of, random_for


class _Runs(NamedTuple):
    """For each row two runs of columns, in order: (n, 2) each."""

    start: Int64
    counts: Int64
    step: int


@dataclass(frozen=True)
class Family:
    """Rules of one kind, each with all entries of the one before.

    Args:
        rule: Number `size` of them, from 0.
        most: The last one that adds anything.
        mend: What to change where no member has the entries asked for.
    """

    rule: Callable[[int], Rule]
    most: int
    mend: str


def reach(grid: Grid) -> int:
    """The largest distance between a query and a key."""
    return grid.cols - 1


def rule_counts(rule: Rule, grid: Grid) -> Int64:
    """The entries of each row."""
    found: Int64 = _runs(rule, grid).counts.sum(axis=1)
    return found


def rule_nnz(rule: Rule, queries: int, keys: int) -> int:
    """How many entries a rule has."""
    return int(rule_counts(rule, Grid.of("rule", queries, keys)).sum())


def rule_rows(rule: Rule, grid: Grid) -> Rows:
    """The entries of a rule; takes memory for these alone."""
    start, count, step = _runs(rule, grid)
    indptr = np.zeros(grid.rows + 1, dtype=np.int64)
    np.cumsum(count.sum(axis=1), out=indptr[1:])
    grid.check_room(int(indptr[-1]))
    start, count = start.ravel(), count.ravel()
    steps = np.tile(np.array([1, step], dtype=np.int64), grid.rows)
    within = np.arange(indptr[-1], dtype=np.int64)
    within -= np.repeat(np.cumsum(count) - count, count)
    if step > 1:
        within *= np.repeat(steps, count)
    within += np.repeat(start, count)
    return Rows(indptr, within)


def rule_mask(rule: Rule, queries: int, keys: int) -> Mask:
    """CSR of the entries of a rule."""
    grid = Grid.of("rule_mask", queries, keys)
    return grid.finish(rule_rows(rule, grid))


def family_entries(family: Family, grid: Grid, sparsity: float) -> int:
    """The entries that a sparsity leaves, if the family reaches them.

    Raises:
        InvalidArgument: If no member has so few or so many.
    """
    least, most = (int(rule_counts(family.rule(size), grid).sum()) for size in (0, family.most))
    return grid.reached(sparsity, least, most, family.mend)


def family_rule(family: Family, grid: Grid, size: int | None, sparsity: float | None, *, name: str) -> Rule:
    """The member that was asked for: number `size`, or the largest with no more entries than `sparsity` leaves.

    Raises:
        InvalidArgument: If both or none are given, or no member has so few or so many entries.
    """
    one_of(grid.where, **{name: size, "sparsity": sparsity})
    if size is not None:
        return family.rule(size)
    assert sparsity is not None
    return family.rule(_largest(family, grid, family_entries(family, grid, sparsity)))


def family_mask(family: Family, grid: Grid, size: int | None, sparsity: float | None, *, name: str, seed: int) -> Mask:
    """The member that was asked for, with exactly the entries that a sparsity leaves.

    What the largest member that fits still lacks is drawn, by the seed, from what the next member adds to it: the mask
    always lies between two neighbours of its kind.
    """
    random = random_for(grid.where, seed)
    if size is not None or sparsity is None:
        return grid.finish(rule_rows(family_rule(family, grid, size, sparsity, name=name), grid))
    return grid.finish(family_rows(family, grid, family_entries(family, grid, sparsity), random))


def family_rows(family: Family, grid: Grid, wanted: int, random: np.random.Generator) -> Rows:
    """Exactly `wanted` entries, between two neighbours of the family."""
    size = _largest(family, grid, wanted)
    inner = family.rule(size)
    found = rule_rows(inner, grid)
    lacking = wanted - found.indices.size
    if not lacking:
        return found
    rows, cols = _between(inner, family.rule(size + 1), grid)
    chosen = draw(random, rows.size, lacking)
    return added(grid, found, rows[chosen], cols[chosen])


def check_positions(grid: Grid) -> None:
    """Refuse more queries than keys: a rule goes by the key that a query stands at.

    Raises:
        InvalidArgument: If the first queries stand at none.
    """
    if grid.rows > grid.cols:
        raise InvalidArgument(
            f"{grid.where}: there are {grid.rows} queries and {grid.cols} keys, but a rule goes by the key that each "
            "query stands at; pass no more queries than keys, or use another kind of mask, such as random."
        )


def _runs(rule: Rule, grid: Grid) -> _Runs:
    check_positions(grid)
    at, seen = grid.positions, grid.visible(rule.causal)
    shared = min(rule.global_tokens, grid.cols)
    all_of_it = at < rule.global_tokens
    head = np.where(all_of_it, seen, np.minimum(shared, seen))
    low = np.zeros_like(at) if rule.window is None else at - rule.window
    high = seen if rule.window is None else np.minimum(at + rule.window + 1, seen)
    low = np.maximum(low, shared)
    low += (at - low) % rule.dilation
    tail = np.where(all_of_it | (not rule.windowed), 0, np.maximum(-((low - high) // rule.dilation), 0))
    return _Runs(np.stack([np.zeros_like(low), low], axis=1), np.stack([head, tail], axis=1), rule.dilation)


def _largest(family: Family, grid: Grid, wanted: int) -> int:
    """The last member with at most `wanted` entries; the first one has no more."""
    low, high = 0, family.most
    while low < high:
        middle = (low + high + 1) // 2
        if int(rule_counts(family.rule(middle), grid).sum()) <= wanted:
            low = middle
        else:
            high = middle - 1
    return low


def _between(inner: Rule, outer: Rule, grid: Grid) -> tuple[Int64, Int64]:
    """The entries that one rule has and a smaller neighbour has not, in order."""
    at, every = grid.positions, np.arange(grid.rows, dtype=np.int64)
    rows, cols = [], []
    if inner.window is not None and outer.window is not None:
        for away in range(inner.window + 1, outer.window + 1):
            rows += [every, every]
            cols += [at - away, at + away]
    for token in range(inner.global_tokens, outer.global_tokens):
        row = token - int(at[0])
        rows += [every, np.full(grid.cols, row, dtype=np.int64)]
        cols += [np.full(grid.rows, token, dtype=np.int64), np.arange(grid.cols, dtype=np.int64)]
    i, j = np.concatenate(rows), np.concatenate(cols)
    inside = (i >= 0) & (i < grid.rows) & (j >= 0) & (j < grid.cols)
    i, j = i[inside], j[inside]
    new = outer.contains(i + at[0], j) & ~inner.contains(i + at[0], j)
    flat = distinct(i[new] * grid.cols + j[new])
    return flat // grid.cols, flat % grid.cols
