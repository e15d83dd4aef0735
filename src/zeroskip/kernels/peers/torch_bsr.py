"""torch's product of a BSR matrix on the CPU, which is oneMKL's: blocks are square, 4 x 4 where the matrix brings none
and its shape allows.

torch has Triton kernels for BSR on GPUs alone. Blocks of another format are made here, so that an unstructured matrix
shows what blocks of mostly zeros cost.
"""

from __future__ import annotations

import math
import platform
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...formats import BSR, COO, SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from ._common import missing, too_large
from ._prepared import PeerPrepared
from .torch_dense import tensor_of

_BLOCK = 4


@dataclass(frozen=True)
class TorchBsr(PeerPrepared):
    kernel: str
    shape: tuple[int, int]
    weight: Any
    nbytes: int

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        import torch

        source, result = tensor_of(x), torch.from_numpy(out)
        with torch.inference_mode():
            result.copy_((self.weight @ source.t()).t() if transposed else self.weight @ source)
        finish(out, bias, activation, transposed)


class TorchBsrKernel(KernelInfo):
    def why_not(self) -> str | None:
        if platform.machine() not in ("x86_64", "AMD64"):
            return f"torch multiplies BSR with oneMKL, which there is for x86-64 and not for {platform.machine()}"
        return missing("torch")

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> TorchBsr:
        import torch

        blocks = _square(a if a.dtype == "float32" else a.astype("float32"))
        arrays = blocks.indptr.astype(np.int32), blocks.indices.astype(np.int32), np.array(blocks.data)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "sparse BSR support is in beta"
            indptr, indices, data = (torch.from_numpy(array) for array in arrays)
            weight = torch.sparse_bsr_tensor(indptr, indices, data, size=a.shape)
        return TorchBsr(self.name, a.shape, weight, sum(array.nbytes for array in arrays))


def _square(a: SparseMatrix) -> BSR:
    """`a` in square blocks: those of its own cut up, else 4 x 4, or what of that divides its shape."""
    if isinstance(a, BSR) and a.block[0] == a.block[1]:
        return a
    size = math.gcd(*(a.block if isinstance(a, BSR) else (_BLOCK, *a.shape)))
    # Not through `convert`, which drops zeros: what is stored is multiplied, and so meets a NaN of x.
    rows, cols, data = (np.ascontiguousarray(array) for array in a.entries())
    return BSR.from_coo(COO(a.shape, rows, cols, data), block=(size, size))


registry.add("spmm_bsr_f32_torch", TorchBsrKernel("spmm_bsr_f32_torch", "bsr", "float32", "torch", "torch"))
