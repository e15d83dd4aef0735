"""A layer of Swin-Tiny pruned to one half, from the data sets of gunrock."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ._base import Entry, FileSet, registry
from ._files import matching
from .io.smtx import Structure, read_smtx

_TAIL = "_swin_tiny_unstructured_50.smtx"


def _load(path: Path, _seed: int) -> Structure:
    return read_smtx(path)


def _index() -> list[Entry]:
    return [
        Entry(
            path.name.removesuffix(_TAIL),
            "swin",
            "weights",
            partial(_load, path),
            model="swin_tiny",
            method="unstructured",
            level=0.5,
            path=path,
        )
        for path in matching(f"dlmc/*{_TAIL}")
    ]


registry.add(
    "swin",
    FileSet(
        "swin",
        "layers of Swin-Tiny, pruned to 50 %",
        "weights",
        "Apache-2.0",
        "https://github.com/gunrock/datasets",
        _index,
        (f"dlmc/LAYER{_TAIL}",),
    ),
)
