"""Products with the adjacency of a graph: the sum over edges (`ops.gspmm`) behind the interface of weight kernels.

Kernels of weights count entries for each row and block of columns; a graph of a million nodes has nearly none in each.
Sums over edges go row by row and touch nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..formats import CSR, SparseMatrix
from ._base import ISAS, OURS, Float32, KernelInfo, registry
from ._epilogue import finish
from .graph import gspmm, isas

# A matrix of more elements than this, with more than one entry in a thousand and more than so many a row, is no graph:
# kernels of weights are faster.
_SMALL_ELEMS, _GRAPH, _DEGREE = 2**20, 1000, 16


@dataclass(frozen=True)
class GraphProduct:
    """A CSR with float32 values, and the kernel that sums over it."""

    kernel: str
    isa: str
    graph: CSR
    weights: Float32

    @property
    def shape(self) -> tuple[int, int]:
        return self.graph.shape

    @property
    def nbytes(self) -> int:
        return int(self.graph.indptr.nbytes + self.graph.indices.nbytes + self.weights.nbytes)

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        """out = activation(A @ x + bias); token-major operands are copied."""
        given = np.ascontiguousarray(x.T if transposed else x)
        direct = not transposed and out.flags.c_contiguous
        result = out if direct else np.empty((self.shape[0], given.shape[1]), dtype=np.float32)
        cube = (-1, 1, given.shape[1])
        gspmm(self.isa, self.graph, given.reshape(cube), self.weights, "sum", result.reshape(cube))
        if not direct:
            out[...] = result.T if transposed else result
        finish(out, bias, activation, transposed)


class GraphKernel(KernelInfo):
    """The newest sum over edges that runs here."""

    def why_not(self) -> str | None:
        return dict(isas)[self.isa]

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        elems = a.shape[0] * a.shape[1]
        if elems <= _SMALL_ELEMS or a.nnz * _GRAPH <= elems or a.nnz <= _DEGREE * a.shape[0]:
            return None
        return f"it is made for graphs, with fewer than one entry in {_GRAPH}, or {_DEGREE} a row"

    def prepare(self, a: SparseMatrix) -> GraphProduct:
        csr = a if isinstance(a, CSR) else CSR.from_coo(a.to_coo())
        weights = np.ascontiguousarray(csr.decoded(), dtype=np.float32).reshape(-1, 1)
        return GraphProduct(self.name, self.isa, csr, weights)


_newest = max((isa for isa, reason in isas if reason is None), key=ISAS.index)
_name = f"spmm_csr_f32_{_newest}_gspmm"
registry.add(_name, GraphKernel(_name, "csr", "float32", _newest, OURS[1]))
