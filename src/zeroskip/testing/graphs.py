"""Graphs for tests, each from a seed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..formats import CSR
from ..formats._dtypes import Array


def graph_of_lengths(lengths: Array, cols: int, seed: int = 0, *, index: type = np.int32) -> CSR:
    """A graph whose rows have so many entries, at random places, with normal values."""
    rng = np.random.default_rng(seed)
    indptr = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=indptr[1:])
    rows = [np.sort(rng.choice(cols, size=int(n), replace=False)) for n in lengths]
    indices: Array = np.concatenate([*rows, np.empty(0, np.int64)]).astype(index)
    values = rng.standard_normal(indices.size, dtype=np.float32)
    return CSR((len(lengths), cols), indptr, indices, values)


def power_law(nodes: int, entries: int, seed: int = 0) -> CSR:
    """About `entries` entries; in- and out-degrees fall with a power of the rank, nodes are in random order."""
    rng = np.random.default_rng(seed)
    chance = np.arange(1, nodes + 1, dtype=np.float64) ** -0.6
    chance /= chance.sum()
    targets, sources = (rng.permutation(nodes)[rng.choice(nodes, size=entries, p=chance)] for _ in range(2))
    keys = np.unique(targets.astype(np.int64) * nodes + sources)
    indptr = np.zeros(nodes + 1, dtype=np.int64)
    np.cumsum(np.bincount(keys // nodes, minlength=nodes), out=indptr[1:])
    return CSR((nodes, nodes), indptr, (keys % nodes).astype(np.int32), np.ones(keys.size, dtype=np.float32))


def _lengths(*counts: int) -> Callable[[], CSR]:
    return lambda: graph_of_lengths(np.array(counts), 400, 1)


def _random(index: type) -> CSR:
    lengths = np.random.default_rng(3).integers(0, 12, size=120)
    return graph_of_lengths(lengths, 90, 4, index=index)


def _hubs() -> CSR:
    lengths = np.full(300, 3)
    lengths[[7, 8, 299]] = 9000
    return graph_of_lengths(lengths, 9000, 5)


GRAPHS: dict[str, Callable[[], CSR]] = {
    "one": lambda: graph_of_lengths(np.array([1]), 1),
    "no entries": lambda: graph_of_lengths(np.zeros(5, dtype=np.int64), 7),
    "empty rows": _lengths(0, 3, 0, 0, 1, 0),
    "around a block": _lengths(47, 48, 49, 95, 96, 97, 0, 1),
    "one full row": _lengths(0, 400, 0, 2),
    "uint16": lambda: _random(np.uint16),
    "int32": lambda: _random(np.int32),
    "int64": lambda: _random(np.int64),
    "hubs": _hubs,
    "power law": lambda: power_law(700, 5000, 6),
}
