"""SciPy's CSR product as a sum over the edges of a graph. Called as the kernels of `kernels.graph` are."""

from __future__ import annotations

import numpy as np

from ...formats import CSR
from .._base import Float32
from .._operations import OperationKernel, operations
from ._common import missing, only_sums


def csr_matmul(graph: CSR, x: Float32, weights: Float32 | None, reduce: str, out: Float32) -> None:
    """One head at a time; a mean is a sum, divided."""
    from scipy import sparse

    only_sums("gspmm_csr_f32_scipy", reduce)
    for head in range(x.shape[1]):
        values = np.ones(graph.nnz, dtype=np.float32) if weights is None else weights[:, head].copy()
        matrix = sparse.csr_array((values, graph.indices.astype(np.int64), graph.indptr), shape=graph.shape)
        found = matrix @ np.ascontiguousarray(x[:, head])
        if reduce == "mean":
            found /= np.maximum(np.diff(graph.indptr), 1).astype(np.float32)[:, None]
        out[:, head] = found


operations.add(
    "gspmm_csr_f32_scipy",
    OperationKernel(
        "gspmm_csr_f32_scipy",
        "gspmm",
        "csr",
        "float32",
        "scipy",
        "scipy",
        csr_matmul,
        missing("scipy"),
        "SciPy's product of a CSR matrix: sum and mean",
    ),
)
