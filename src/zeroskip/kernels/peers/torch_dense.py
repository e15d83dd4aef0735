"""torch on the CPU: its dense product, which is the baseline of every speed-up, its sparse CSR product, and its dense
product in bfloat16, which rounds x and the result and so is no baseline for float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from ._common import csr_arrays, missing, too_large
from ._prepared import DensePeer, PeerPrepared

_FEW_COLUMNS = 16


class TorchDense(DensePeer):
    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        import torch

        source, result = tensor_of(x), torch.from_numpy(out)
        with torch.inference_mode():
            product(self.weight, source, result, None if bias is None else tensor_of(bias), transposed)
            activate(result, activation)


class TorchDenseBf16(DensePeer):
    """Weights in bfloat16; x and the product are rounded to it, bias and activation are added in float32."""

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        import torch

        with torch.inference_mode():
            torch.from_numpy(out).copy_(self.on(x, transposed)())
        finish(out, bias, activation, transposed)

    def on(self, x: Float32, transposed: bool) -> Callable[[], Any]:
        """The product alone, of an x that is in bfloat16 already, into a result that stays so: as its models run."""
        import torch

        source = tensor_of(x).bfloat16()
        rows = self.weight.shape[0]
        shape = (x.shape[0], rows) if transposed else (rows, x.shape[1])
        result = torch.empty(shape, dtype=torch.bfloat16)

        def call() -> Any:
            with torch.inference_mode():
                product(self.weight, source, result, None, transposed)
            return result

        return call


@dataclass(frozen=True)
class TorchCsr(PeerPrepared):
    kernel: str
    shape: tuple[int, int]
    weight: Any
    nbytes: int

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        import torch

        source, result = tensor_of(x), torch.from_numpy(out)
        with torch.inference_mode():
            result.copy_((self.weight @ source.t()).t() if transposed else self.weight @ source)
            if bias is not None:
                result += tensor_of(bias) if transposed else tensor_of(bias)[:, None]
            activate(result, activation)


class TorchDenseKernel(KernelInfo):
    def why_not(self) -> str | None:
        return missing("torch")

    def prepare(self, a: SparseMatrix) -> TorchDense:
        import torch

        return TorchDense(self.name, torch.from_numpy(a.to_dense()))


class TorchDenseBf16Kernel(KernelInfo):
    """Fast where the processor multiplies bfloat16 (AVX-512 BF16, AMX), and a hundred times slower elsewhere."""

    x_dtype = sum_dtype = "bfloat16"

    def why_not(self) -> str | None:
        return missing("torch")

    def prepare(self, a: SparseMatrix) -> TorchDenseBf16:
        import torch

        return TorchDenseBf16(self.name, torch.from_numpy(a.to_dense()).bfloat16())


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


def product(weight: Any, x: Any, result: Any, bias: Any, transposed: bool) -> None:
    """The fastest of torch's dense calls for the shape.

    One vector is a matrix-vector product: 3.5 ms against 7.5 ms of mm on a row, 4096 x 4096 on one Zen 3 core. A few
    columns are faster as rows: 0.28 ms against 1.17 ms for 1536 x 576 and 8 columns; from 32 on it is
    the same.
    """
    import torch

    n = x.shape[0] if transposed else x.shape[1]
    if n == 1:
        torch.mv(weight, x.reshape(-1), out=result.view(-1))
    elif transposed:
        torch.mm(x, weight.t(), out=result) if bias is None else torch.addmm(bias, x, weight.t(), out=result)
        return
    elif n <= _FEW_COLUMNS:
        result.copy_(torch.mm(x.t().contiguous(), weight.t()).t())
    else:
        torch.mm(weight, x, out=result)
    if bias is not None:
        result += bias if transposed else bias[:, None]


def tensor_of(x: Float32) -> Any:
    """`x` as a tensor. torch warns about memory it may not write, so such an array is copied."""
    import torch

    return torch.from_numpy(x if x.flags.writeable else np.array(x))


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
registry.add(
    "spmm_dense_bf16_torch", TorchDenseBf16Kernel("spmm_dense_bf16_torch", "dense", "bfloat16", "torch", "torch")
)
registry.add("spmm_csr_f32_torch", TorchCsrKernel("spmm_csr_f32_torch", "csr", "float32", "torch", "torch"))
