"""TUDataset: many small graphs as one matrix, a block on the diagonal each."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ._base import Entry, FileSet, registry
from ._files import Remote, locate
from .io.edges import read_graph_list, read_tu_zip
from .io.smtx import Structure

_NAMES = ("MUTAG", "PROTEINS", "REDDIT-BINARY", "OVCAR-8H")


def _load(path: Path, _seed: int) -> Structure:
    return read_tu_zip(path) if path.suffix == ".zip" else read_graph_list(path)


def _index() -> list[Entry]:
    places = ((name, locate(f"graphs/{name}.zip", f"graphs/tu_{name}.txt.xz")) for name in _NAMES)
    return [
        Entry(name, "tudataset", "graph", partial(_load, path), path=path) for name, path in places if path is not None
    ]


registry.add(
    "tudataset",
    FileSet(
        "tudataset",
        "TUDataset: molecules, proteins and threads, many small graphs in one matrix",
        "graph",
        "none stated",
        "https://chrsmrrs.github.io/datasets/",
        _index,
        ("graphs/PROTEINS.zip",),
        tuple(
            Remote(f"graphs/{name}.zip", f"https://www.chrsmrrs.com/graphkerneldatasets/{name}.zip", name)
            for name in _NAMES
        ),
    ),
)
