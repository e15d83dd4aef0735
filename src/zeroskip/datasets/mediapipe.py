"""Production weights: the 1x1 convolutions of MediaPipe's pose detection, 75 % zeros in no pattern, float16 values."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from .._errors import DamagedFile
from ..formats import CSR
from ._base import Entry, FileSet, registry
from ._files import locate
from .io.npz import array_names, read_arrays

_FILE = "models/mediapipe_pose_detection_decoded.npz"
_HEAD, _TAIL = "model_1.model.", ".Conv2D_dequantize"


def _load(path: Path, array: str, _seed: int) -> CSR:
    """Output channels x inputs of one output: (O, H, W, I) as a matrix (O, H W I)."""
    weight = read_arrays(path, [array])[array]
    if weight.ndim != 4 or weight.dtype.kind != "f" or not weight.size or not np.isfinite(weight).all():
        raise DamagedFile(f"{path}: {array} is {weight.dtype} {weight.shape}, no such weight; get it again.")
    return CSR.from_dense(weight.reshape(weight.shape[0], -1).astype(np.float32))


def _index() -> list[Entry]:
    path = locate(_FILE)
    if path is None:
        return []
    return [
        Entry(
            name.removeprefix(_HEAD).removesuffix(_TAIL),
            "mediapipe",
            "weights",
            partial(_load, path, name),
            model="pose_detection",
            method="unstructured",
            level=0.75,
            path=path,
        )
        for name in sorted(array_names(path))
    ]


registry.add(
    "mediapipe",
    FileSet(
        "mediapipe",
        "MediaPipe's pose detection, 38 pointwise convolutions pruned for production",
        "weights",
        "Apache-2.0",
        "https://pypi.org/project/mediapipe/0.10.11/",
        _index,
        (_FILE,),
    ),
)
