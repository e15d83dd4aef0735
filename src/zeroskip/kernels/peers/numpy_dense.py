"""The dense product of NumPy's BLAS."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish


@dataclass(frozen=True)
class NumpyDense:
    kernel: str
    weight: Float32

    @property
    def shape(self) -> tuple[int, int]:
        return self.weight.shape[0], self.weight.shape[1]

    @property
    def nbytes(self) -> int:
        return self.weight.nbytes

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
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
