"""Graphs of the Open Graph Benchmark, from its zips in `graphs`."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ._base import Entry, FileSet, registry
from ._files import Remote, locate
from .io.edges import read_ogb
from .io.smtx import Structure

_SITE = "http://snap.stanford.edu/ogb/data/"
# Name: its zip, and whether the zip has one direction of each edge of an undirected graph.
_GRAPHS = {
    "ogbn-arxiv": ("nodeproppred/arxiv.zip", False),
    "ogbn-proteins": ("nodeproppred/proteins.zip", True),
    "ogbn-products": ("nodeproppred/products.zip", True),
    "ogbl-collab": ("linkproppred/collab.zip", True),
    "ogbl-ddi": ("linkproppred/ddi.zip", True),
    "ogbl-ppa": ("linkproppred/ppassoc.zip", True),
}


def _load(path: Path, undirected: bool, _seed: int) -> Structure:
    # ogbl-collab has an edge for each year in which two authors wrote together.
    return read_ogb(path, undirected=undirected, merge=True)


def _index() -> list[Entry]:
    found = []
    for name, (_, undirected) in _GRAPHS.items():
        if path := locate(f"graphs/{name}.zip"):
            found.append(Entry(name, "ogb", "graph", partial(_load, path, undirected), path=path))
    return found


registry.add(
    "ogb",
    FileSet(
        "ogb",
        "Open Graph Benchmark: citations, proteins, drugs (products: Amazon's licence)",
        "graph",
        "ODC-BY, CC0-1.0",
        "https://ogb.stanford.edu",
        _index,
        ("graphs/ogbn-arxiv.zip",),
        tuple(Remote(f"graphs/{name}.zip", _SITE + file, name) for name, (file, _) in _GRAPHS.items()),
    ),
)
