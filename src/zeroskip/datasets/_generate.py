"""Random graphs with exactly as many nodes and entries as asked for; the random numbers decide the rest.

Each draws more edges than it needs, keeps every one once, and leaves some out by lot until the number is right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from .io._entries import distinct, structure
from .io.smtx import Structure

Int64 = npt.NDArray[np.int64]
Pairs = tuple[Int64, Int64]

_ROUNDS = 200
# Graph500's: half of the edges are in the first quarter.
RMAT = (0.57, 0.19, 0.19, 0.05)


def power_law(nodes: int, entries: int, random: np.random.Generator, *, exponent: float = 0.6) -> Structure:
    """Undirected; the chance of a node falls with its rank to the power of `exponent`, ranks are in random order.

    Degrees then follow a power law with exponent 1 + 1 / `exponent`: few rows have very many entries.
    """
    name = random.permutation(nodes)

    def draw(count: int) -> Pairs:
        ranks = nodes * random.random((2, count)) ** (1 / (1 - exponent))
        ends = name[np.minimum(ranks.astype(np.int64), nodes - 1)]
        return ends[0], ends[1]

    return _undirected("power_law", nodes, entries, random, draw)


def rmat(nodes: int, entries: int, random: np.random.Generator) -> Structure:
    """Directed; each edge goes down the four quarters of the matrix with the chances `RMAT`.

    Source: Chakrabarti, Zhan, Faloutsos, "R-MAT: A Recursive Model for Graph Mining", SDM 2004.
    """
    levels = max(1, (nodes - 1).bit_length())
    first, second, third, _ = RMAT

    def draw(count: int) -> Pairs:
        row, column = np.zeros(count, dtype=np.int64), np.zeros(count, dtype=np.int64)
        for _level in range(levels):
            chance = random.random(count, dtype=np.float32)
            row = 2 * row + (chance >= first + second)
            column = 2 * column + (((chance >= first) & (chance < first + second)) | (chance >= first + second + third))
        inside = (row < nodes) & (column < nodes)
        return row[inside], column[inside]

    return _directed("rmat", nodes, entries, random, draw)


def communities(nodes: int, entries: int, random: np.random.Generator, *, inside: float = 0.8) -> Structure:
    """Directed stochastic block model: the share `inside` of the edges stays in a block of neighbouring nodes.

    Blocks have four times as many nodes as a row has entries on average, and at least 64.
    """
    size = min(nodes, max(64, 4 * entries // nodes))

    def draw(count: int) -> Pairs:
        row = random.integers(0, nodes, count)
        begin = row // size * size
        near = begin + (random.random(count) * np.minimum(size, nodes - begin)).astype(np.int64)
        far = random.integers(0, nodes, count)
        return row, np.where(random.random(count) < inside, near, far)

    return _directed("communities", nodes, entries, random, draw)


def lattice(nodes: int, entries: int, random: np.random.Generator) -> Structure:
    """Undirected; nodes on a square grid, row by row, edges between nearest ones, some left out: a map of roads."""
    width = int(np.ceil(np.sqrt(nodes)))
    place = np.arange(nodes, dtype=np.int64)
    reach, keys = 1, np.zeros(0, dtype=np.int64)
    while keys.size < entries // 2:
        if reach > width:
            raise _too_many("lattice", nodes, entries)
        ahead = [
            (down, right) for down in range(reach + 1) for right in range(-reach, reach + 1) if (down, right) > (0, 0)
        ]
        ahead = [step for step in ahead if step[0] + abs(step[1]) <= reach]
        found = []
        for down, right in ahead:
            there = place + down * width + right
            side = place % width + right
            kept = (there < nodes) & (side >= 0) & (side < width)
            found.append(place[kept] * nodes + there[kept])
        keys, reach = np.concatenate(found), reach + 1
    return _mirrored(nodes, entries, random, keys)


def small_graphs(nodes: int, entries: int, random: np.random.Generator, *, mean_nodes: float) -> Structure:
    """Undirected; many connected graphs of 1 to twice `mean_nodes` nodes, a block on the diagonal each."""
    sizes = random.integers(1, max(2, round(2 * mean_nodes)), size=max(1, round(2 * nodes / mean_nodes)))
    ends = np.minimum(np.cumsum(sizes), nodes)
    starts = distinct(np.concatenate(([0], ends[ends < nodes])))
    graph = np.searchsorted(starts, np.arange(nodes), side="right") - 1
    begin, size = starts[graph], np.diff(np.append(starts, nodes))[graph]
    node = np.arange(nodes, dtype=np.int64)
    parent = begin + (random.random(nodes) ** 2 * (node - begin)).astype(np.int64)  # a tree, thicker at its root
    tree = (parent * nodes + node)[parent < node]

    def draw(count: int) -> Pairs:
        row = random.integers(0, nodes, count)
        return row, begin[row] + (random.random(count) * size[row]).astype(np.int64)

    return _undirected("small_graphs", nodes, entries, random, draw, tree)


def _directed(
    where: str, nodes: int, entries: int, random: np.random.Generator, draw: Callable[[int], Pairs]
) -> Structure:
    """Exactly `entries` of the drawn places, without the diagonal."""

    def keys(count: int) -> Int64:
        row, column = draw(count)
        off = row != column
        found: Int64 = row[off] * nodes + column[off]
        return found

    key = _collect(where, nodes, entries, entries, nodes * (nodes - 1), random, keys, np.zeros(0, dtype=np.int64))
    return structure((nodes, nodes), key // nodes, key % nodes)


def _undirected(
    where: str,
    nodes: int,
    entries: int,
    random: np.random.Generator,
    draw: Callable[[int], Pairs],
    start: Int64 | None = None,
) -> Structure:
    """Both directions of drawn edges; `start` are edges that come first, as keys with row < column."""

    def keys(count: int) -> Int64:
        row, column = draw(count)
        off = row != column
        found: Int64 = np.minimum(row, column)[off] * nodes + np.maximum(row, column)[off]
        return found

    first = np.zeros(0, dtype=np.int64) if start is None else start
    most = nodes * (nodes - 1) // 2
    return _mirrored(nodes, entries, random, _collect(where, nodes, entries, entries // 2, most, random, keys, first))


def _collect(
    where: str,
    nodes: int,
    entries: int,
    wanted: int,
    most: int,
    random: np.random.Generator,
    keys: Callable[[int], Int64],
    start: Int64,
) -> Int64:
    """`wanted` distinct keys, or those of `start` where they are more."""
    if wanted > most:
        raise _too_many(where, nodes, entries)
    found = distinct(start)
    for _ in range(_ROUNDS):
        missing = wanted - found.size
        if missing <= 0:
            return found
        fresh = distinct(keys(missing + missing // 4 + 64))
        fresh = fresh[~_among(fresh, found)]
        if fresh.size > missing:
            fresh = fresh[random.permutation(fresh.size)[:missing]]
        found = distinct(np.concatenate([found, fresh]))
    raise _too_many(where, nodes, entries)


def _among(some: Int64, every: Int64) -> npt.NDArray[np.bool_]:
    """Which of `some` are in the sorted `every`."""
    if not every.size:
        return np.zeros(some.size, dtype=np.bool_)
    at = np.minimum(np.searchsorted(every, some), every.size - 1)
    found: npt.NDArray[np.bool_] = every[at] == some
    return found


def _mirrored(nodes: int, entries: int, random: np.random.Generator, keys: Int64) -> Structure:
    """Half of the entries by lot from edges, and their mirror images; an odd one is a loop."""
    kept = keys[random.permutation(keys.size)[: entries // 2]]
    loop: Any = random.integers(0, nodes, entries % 2)
    row, column = kept // nodes, kept % nodes
    return structure((nodes, nodes), np.concatenate([row, column, loop]), np.concatenate([column, row, loop]))


def _too_many(where: str, nodes: int, entries: int) -> InvalidArgument:
    return InvalidArgument(f"{where}: entries is {entries}, too many for a graph of its kind with {nodes} nodes.")
