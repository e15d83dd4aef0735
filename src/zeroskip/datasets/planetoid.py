"""Planetoid's citation graphs (Cora) from the folder that ZEROSKIP_DATA_DIR names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DamagedFile, InvalidArgument
from ..formats import CSR

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
        folder: Of the data; ZEROSKIP_DATA_DIR where None.
    Raises:
        InvalidArgument: If the file is not there.
        DamagedFile: If it does not hold what it should.
    """
    root = os.environ.get("ZEROSKIP_DATA_DIR", "") if folder is None else str(folder)
    path = Path(root) / "graphs" / f"planetoid_{name}.npz"
    if not root or not path.is_file():
        raise InvalidArgument(f"planetoid: {path} is not there; set ZEROSKIP_DATA_DIR to the folder that has graphs/.")
    with np.load(path, allow_pickle=False) as file:
        missing = [key for key in _ARRAYS if key not in file.files]
        if missing:
            raise DamagedFile(f"planetoid: {path} lacks {', '.join(missing)}; take another copy.")
        found: dict[str, Any] = {key: file[key] for key in _ARRAYS}
    nodes, words = (int(size) for size in found["feat_shape"])
    graph = _matrix((nodes, nodes), found["adj_indptr"], found["adj_indices"], None)
    features = _matrix((nodes, words), found["feat_indptr"], found["feat_indices"], found["feat_data"])
    split = (found[key].astype(np.int64) for key in ("labels", "train_idx", "val_idx", "test_idx"))
    return Planetoid(graph, features, *split)


def _matrix(shape: tuple[int, int], indptr: Any, indices: Any, data: Any) -> CSR:
    """A CSR whose columns need not be sorted in the file."""
    rows = np.repeat(np.arange(shape[0]), np.diff(indptr))
    order = np.lexsort((indices, rows))
    values = np.ones(indices.size, dtype=np.float32) if data is None else data[order].astype(np.float32)
    return CSR(shape, indptr.astype(np.int64), indices[order].astype(np.int32), values)
