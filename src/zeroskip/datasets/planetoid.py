"""Planetoid's citation graphs (Cora, PubMed) from arrays in `graphs`; its own files, pickles, are not read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DamagedFile, InvalidArgument
from ..formats import CSR
from ._base import Entry, FileSet, registry
from ._files import locate, matching
from .io.npz import read_arrays, structure_of
from .io.smtx import Structure

_ARRAYS = (
    "adj_indptr",
    "adj_indices",
    "feat_indptr",
    "feat_indices",
    "feat_data",
    "feat_shape",
    "labels",
    "train_idx",
    "val_idx",
    "test_idx",
)


@dataclass(frozen=True)
class Planetoid:
    """A citation graph: papers, who cites whom in both directions, their words, topics, and the public split."""

    graph: CSR
    features: CSR
    labels: npt.NDArray[np.int64]
    train: npt.NDArray[np.int64]
    valid: npt.NDArray[np.int64]
    test: npt.NDArray[np.int64]


def planetoid(name: str = "cora", folder: str | Path | None = None) -> Planetoid:
    """Read `graphs/planetoid_NAME.npz`; symmetric, without loops. Source: Yang et al. 2016; MIT licence.

    Args:
        folder: Of the data; the data folders where None.
    Raises:
        InvalidArgument: If the file is not there.
        DamagedFile: If it does not hold what it should.
    """
    place = f"graphs/planetoid_{name}.npz"
    path = locate(place) if folder is None else Path(folder) / place
    if path is None or not path.is_file():
        raise InvalidArgument(f"planetoid: {place if path is None else path} is not there; {_MEND}.")
    found = read_arrays(path, _ARRAYS)
    if found["feat_shape"].shape != (2,):
        raise DamagedFile(f"{path}: feat_shape is not two sizes; take another copy.")
    nodes, words = (int(size) for size in found["feat_shape"])
    graph = _matrix(path, (nodes, nodes), found["adj_indptr"], found["adj_indices"], None)
    features = _matrix(path, (nodes, words), found["feat_indptr"], found["feat_indices"], found["feat_data"])
    split = (found[key].astype(np.int64) for key in ("labels", "train_idx", "val_idx", "test_idx"))
    return Planetoid(graph, features, *split)


_MEND = "set ZEROSKIP_DATA_DIR to the folder that has graphs/"


def _matrix(path: Path, shape: tuple[int, int], indptr: Any, indices: Any, data: Any) -> CSR:
    """A CSR whose columns need not be sorted in the file."""
    pattern = structure_of(path, shape, indptr, indices)
    if data is None:
        values = np.ones(indices.size, dtype=np.float32)
    else:
        rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
        values = data[np.lexsort((indices, rows))].astype(np.float32)
    return CSR(shape, pattern.indptr, pattern.indices.astype(np.int32), values)


def _load(path: Path, _seed: int) -> Structure:
    found = read_arrays(path, ("adj_indptr", "adj_indices"))
    nodes = found["adj_indptr"].size - 1
    return structure_of(path, (nodes, nodes), found["adj_indptr"], found["adj_indices"])


def _index() -> list[Entry]:
    head = "planetoid_"
    return [
        Entry(
            path.stem.removeprefix(head).removesuffix("_structure_only"),
            "planetoid",
            "graph",
            partial(_load, path),
            path=path,
        )
        for path in matching(f"graphs/{head}*.npz")
    ]


registry.add(
    "planetoid",
    FileSet(
        "planetoid",
        "citation graphs: Cora, PubMed",
        "graph",
        "MIT",
        "https://github.com/kimiyoung/planetoid",
        _index,
        ("graphs/planetoid_cora.npz",),
    ),
)
