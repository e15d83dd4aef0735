"""torch on the CPU: its dense product, which is the baseline of every speed-up, and its sparse CSR product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, registry
from ._common import csr_arrays, missing, too_large


@dataclass(frozen=True)
class TorchDense:
    kernel: str
    weight: Any

    @property
    def shape(self) -> tuple[int, int]:
        return tuple(self.weight.shape)

    @property
    def nbytes(self) -> int:
        return int(self.weight.nbytes)

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        import torch

        source, result = tensor_of(x), torch.from_numpy(out)
        left, right = (source, self.weight.t()) if transposed else (self.weight, source)
        with torch.inference_mode():
            if bias is None:
                torch.mm(left, right, out=result)
            else:
                torch.addmm(bias_of(bias, transposed), left, right, out=result)
            activate(result, activation)


@dataclass(frozen=True)
class TorchCsr:
    kernel: str
    shape: tuple[int, int]
    weight: Any
    nbytes: int

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        import torch

        source, result = tensor_of(x), torch.from_numpy(out)
        with torch.inference_mode():
            product = (self.weight @ source.t()).t() if transposed else self.weight @ source
            result.copy_(product)
            if bias is not None:
                result += bias_of(bias, transposed)
            activate(result, activation)


class TorchDenseKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("torch")

    def prepare(self, a: SparseMatrix) -> TorchDense:
        import torch

        return TorchDense(self.name, torch.from_numpy(a.to_dense()))


class TorchCsrKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("torch")

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> TorchCsr:
        import warnings

        import torch

        found = csr_arrays(self.name, a)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "sparse CSR support is in beta"
            indptr, indices, data = (torch.from_numpy(array) for array in found)
            weight = torch.sparse_csr_tensor(indptr, indices, data, size=a.shape)
        return TorchCsr(self.name, a.shape, weight, found.nbytes)


def tensor_of(x: Float32) -> Any:
    """`x` as a tensor. torch warns about memory it may not write, so such an array is copied."""
    import torch

    return torch.from_numpy(x if x.flags.writeable else np.array(x))


def bias_of(bias: Float32, transposed: bool) -> Any:
    """The bias, shaped to be added to the output."""
    return tensor_of(bias) if transposed else tensor_of(bias)[:, None]


def activate(result: Any, activation: str | None) -> None:
    """Apply an activation of torch's own, in place."""
    import torch

    if activation is None:
        return
    if activation == "relu":
        result.relu_()
    elif activation == "tanh":
        result.tanh_()
    elif activation == "silu":
        torch.nn.functional.silu(result, inplace=True)
    else:
        kind = "tanh" if activation == "gelu_tanh" else "none"
        torch.ops.aten.gelu_(result, approximate=kind)


registry.add("spmm_dense_f32_torch", TorchDenseKernel("spmm_dense_f32_torch", "dense", "float32", "torch", "torch"))
registry.add("spmm_csr_f32_torch", TorchCsrKernel("spmm_csr_f32_torch", "csr", "float32", "torch", "torch"))
