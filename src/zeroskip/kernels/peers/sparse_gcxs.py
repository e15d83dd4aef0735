"""pydata/sparse: a two-dimensional GCXS array, which is CSR, in a loop that numba compiles when it is first run.

It has no threads, and no vector instructions but those that the compiler finds.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from ._common import csr_arrays, missing, too_large
from ._prepared import PeerPrepared


@dataclass(frozen=True)
class SparseGcxs(PeerPrepared):
    kernel: str
    shape: tuple[int, int]
    weight: Any
    nbytes: int

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        # It asks for a right-hand side that is contiguous one way or the other; a view of the other way is.
        out[...] = (self.weight @ x.T).T if transposed else self.weight @ x
        finish(out, bias, activation, transposed)


class SparseGcxsKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("sparse", "numba")

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> SparseGcxs:
        sparse: Any = importlib.import_module("sparse")
        found = csr_arrays(self.name, a)
        weight = sparse.GCXS((found.data, found.indices, found.indptr), shape=a.shape, compressed_axes=(0,))
        return SparseGcxs(self.name, a.shape, weight, found.nbytes)


registry.add("spmm_csr_f32_pydata", SparseGcxsKernel("spmm_csr_f32_pydata", "csr", "float32", "pydata", "pydata"))
