"""Graphs of the Stanford Network Analysis Project, from its edge lists in `graphs`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .._errors import DamagedFile
from ._base import Entry, FileSet, registry
from ._files import Remote, locate
from .io.edges import read_edges
from .io.npz import read_arrays
from .io.smtx import Structure

_SITE = "https://snap.stanford.edu/data/"


@dataclass(frozen=True)
class _Graph:
    """A file of the site; `undirected`: it has each edge once; `merge`: an edge may be there several times."""

    name: str
    file: str
    undirected: bool = False
    merge: bool = False


_GRAPHS = (
    _Graph("ego-facebook", "facebook_combined.txt.gz", undirected=True),
    _Graph("com-Amazon", "bigdata/communities/com-amazon.ungraph.txt.gz", undirected=True),
    _Graph("com-Youtube", "bigdata/communities/com-youtube.ungraph.txt.gz", undirected=True),
    _Graph("com-Orkut", "bigdata/communities/com-orkut.ungraph.txt.gz", undirected=True),
    _Graph("amazon0505", "amazon0505.txt.gz"),
    _Graph("roadNet-CA", "roadNet-CA.txt.gz"),
    _Graph("web-BerkStan", "web-BerkStan.txt.gz"),
    _Graph("wiki-Talk", "wiki-Talk.txt.gz"),
    _Graph("sx-stackoverflow", "sx-stackoverflow.txt.gz", merge=True),
)
_FACEBOOK = "graphs/snap_ego_facebook.npz"


def _places(graph: _Graph) -> tuple[str, ...]:
    file = Path(graph.file).name
    return f"graphs/{file}", f"graphs/{file.removesuffix('.gz')}"


def _load(path: Path, graph: _Graph, _seed: int) -> Structure:
    return read_edges(path, undirected=graph.undirected, merge=graph.merge)


def _facebook(path: Path, _seed: int) -> Structure:
    """Arrays `src`, `dst` (both directions) and `num_nodes`."""
    from .io._entries import check_single, structure

    found = read_arrays(path, ("src", "dst", "num_nodes"))
    src, dst = (found[name] for name in ("src", "dst"))
    whole = all(array.ndim == 1 and array.dtype.kind in "iu" for array in (src, dst))
    if not whole or src.size != dst.size or found["num_nodes"].size != 1 or not src.size:
        raise DamagedFile(f"{path}: src and dst are no lists of nodes of one length; take another copy.")
    row, column, nodes = src.astype(np.int64), dst.astype(np.int64), int(found["num_nodes"])
    if min(row.min(), column.min()) < 0 or max(row.max(), column.max()) >= nodes:
        raise DamagedFile(f"{path}: an edge leads to a node outside of its {nodes}; take another copy.")
    check_single(str(path), row, column, (nodes, nodes))
    return structure((nodes, nodes), row, column)


def _index() -> list[Entry]:
    found = []
    for graph in _GRAPHS:
        load: Callable[[int], Structure] | None = None
        if path := locate(*_places(graph)):
            load = partial(_load, path, graph)
        elif graph.name == "ego-facebook" and (path := locate(_FACEBOOK)):
            load = partial(_facebook, path)
        if load is not None:
            found.append(Entry(graph.name, "snap", "graph", load, path=path))
    return found


registry.add(
    "snap",
    FileSet(
        "snap",
        "Stanford Network Analysis Project: social, road, web and product graphs",
        "graph",
        "none stated",
        "https://snap.stanford.edu/data/",
        _index,
        ("graphs/facebook_combined.txt.gz",),
        tuple(Remote(_places(graph)[0], _SITE + graph.file, graph.name) for graph in _GRAPHS),
    ),
)
