"""Matrices of the SuiteSparse collection: MatrixMarket files in `matrices`, as they are or in its own tarballs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..formats import CSR
from ._base import Entry, FileSet, registry
from ._files import Remote, matching
from .io.matrix_market import read_matrix_market
from .io.smtx import Structure

_SUFFIXES = (".mtx", ".mtx.gz", ".tar.gz")
_KNOWN = (
    "HB/1138_bus",
    "HB/bcsstk13",
    "HB/west0067",
    "Bai/cryg2500",
    "DIMACS10/chesapeake",
    "Newman/karate",
    "SNAP/amazon0505",
    "SNAP/com-Amazon",
    "SNAP/roadNet-CA",
    "SNAP/web-BerkStan",
    "SNAP/wiki-Talk",
)


def _load(path: Path, _seed: int) -> CSR | Structure:
    return read_matrix_market(path)


def _index() -> list[Entry]:
    found: dict[str, Path] = {}
    for suffix in _SUFFIXES:
        for path in matching(f"matrices/*{suffix}"):
            found.setdefault(path.name.removesuffix(suffix), path)
    return [
        Entry(name, "suitesparse", "graph", partial(_load, found[name]), path=found[name]) for name in sorted(found)
    ]


registry.add(
    "suitesparse",
    FileSet(
        "suitesparse",
        "SuiteSparse Matrix Collection: whatever of it is here, graphs and finite elements",
        "graph",
        "CC-BY-4.0",
        "https://sparse.tamu.edu",
        _index,
        ("matrices/NAME.mtx.gz",),
        tuple(
            Remote(f"matrices/{Path(name).name}.tar.gz", f"https://sparse.tamu.edu/MM/{name}.tar.gz", Path(name).name)
            for name in _KNOWN
        ),
    ),
)
