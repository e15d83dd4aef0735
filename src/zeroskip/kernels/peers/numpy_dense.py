"""The dense product of NumPy's BLAS."""

from __future__ import annotations

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from ._prepared import DensePeer


class NumpyDense(DensePeer):
    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        with np.errstate(all="ignore"):
            if transposed:
                np.matmul(x, self.weight.T, out=out)
            else:
                np.matmul(self.weight, x, out=out)
            finish(out, bias, activation, transposed)


class NumpyDenseKernel(KernelInfo):
    def why_not(self) -> str | None:
        return None

    def prepare(self, a: SparseMatrix) -> NumpyDense:
        return NumpyDense(self.name, a.to_dense())


registry.add("spmm_dense_f32_numpy", NumpyDenseKernel("spmm_dense_f32_numpy", "dense", "float32", "numpy", "numpy"))
