"""NumPy: rows of both operands are gathered and multiplied, which is how an SDDMM is written without a library."""

from __future__ import annotations

import numpy as np

from ...formats import SparseMatrix
from ...formats._dtypes import Array
from .._base import Float32
from .._operations import OperationKernel, operations

_CHUNK_ELEMS = 1 << 18


def gathered(pattern: SparseMatrix, a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float) -> None:
    """Dots of gathered rows, as many at a time as fit a cache."""
    rows, cols, _ = pattern.entries()
    step = max(1, _CHUNK_ELEMS // max(1, a.shape[-1]))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows.size, step):
            part = slice(start, start + step)
            out[..., part] = np.einsum("...ek,...ek->...e", a[..., rows[part], :], b[..., cols[part], :])
        out *= np.float32(alpha)
        if values is not None:
            out *= values


operations.add(
    "sddmm_csr_f32_numpy",
    OperationKernel(
        "sddmm_csr_f32_numpy", "sddmm", "csr", "float32", "numpy", "numpy", gathered, None, "rows gathered, einsum"
    ),
)
