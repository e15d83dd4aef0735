"""Masks of real weights, pruned here: what `benchmarks/llm_dlmc_fit.py` keeps, a tree like that of the collection."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ._archive import Member, members
from ._base import Entry, FileSet, provenance, registry
from ._files import locate
from .io.smtx import Structure, read_smtx

FOLDER = "pruned"


def _load(path: Path, _seed: int) -> Structure:
    return read_smtx(path)


def _index() -> list[Entry]:
    root = locate(FOLDER)
    if root is None or not root.is_dir():
        return []
    return [_entry(root, member) for member in members(root)]


def _entry(root: Path, member: Member) -> Entry:
    name, path = member.name.removesuffix(".smtx"), root / member.name
    load = partial(_load, path)
    return Entry(name, FOLDER, "weights", load, **provenance(name), shape=member.shape, nnz=member.nnz, path=path)


registry.add(
    "pruned",
    FileSet(
        "pruned",
        "layers of MiniLM and SmolLM2 pruned by magnitude, Wanda and SparseGPT",
        "weights",
        "Apache-2.0",
        "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        _index,
        (f"{FOLDER}/MODEL/METHOD/LEVEL/LAYER.smtx",),
    ),
)
