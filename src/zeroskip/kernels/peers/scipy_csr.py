"""SciPy's CSR product: one thread, no vector code of its own; what a Python user gets by default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from ._common import csr_arrays, missing, too_large
from ._prepared import PeerPrepared


@dataclass(frozen=True)
class ScipyCsr(PeerPrepared):
    kernel: str
    shape: tuple[int, int]
    weight: Any

    @property
    def nbytes(self) -> int:
        return int(self.weight.data.nbytes + self.weight.indices.nbytes + self.weight.indptr.nbytes)

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        out[...] = (self.weight @ x.T).T if transposed else self.weight @ x
        finish(out, bias, activation, transposed)


class ScipyCsrKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("scipy")

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> ScipyCsr:
        from scipy import sparse  # type: ignore[import-untyped, unused-ignore]

        found = csr_arrays(self.name, a)
        weight = sparse.csr_array((found.data, found.indices, found.indptr), shape=a.shape)
        return ScipyCsr(self.name, a.shape, weight)


registry.add("spmm_csr_f32_scipy", ScipyCsrKernel("spmm_csr_f32_scipy", "csr", "float32", "scipy", "scipy"))
