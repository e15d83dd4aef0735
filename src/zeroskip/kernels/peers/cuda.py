"""NVIDIA GPUs: cuBLAS and cuSPARSELt through torch, cuSPARSE through CuPy, and PyTorch Geometric's torch-sparse.

Not tested: written on machines without a GPU. `run` copies x to the device and the result back; what is timed (`on`) is
the product of what lies there already, until the device is done. `device` says that they are no rivals of a CPU.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ...formats import NM, SparseMatrix
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from ._common import csr_arrays, missing, too_large
from ._prepared import PeerPrepared


class OnDevice(PeerPrepared):
    """A matrix on the device, and how it is multiplied there."""

    def __init__(self, kernel: str, shape: tuple[int, int], nbytes: int, product: Callable[[Any], Any]) -> None:
        self.kernel, self.shape, self.nbytes = kernel, shape, nbytes
        self._product = product

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        found = self.on(x, transposed)().float().cpu().numpy()
        out[...] = found.T if transposed else found
        finish(out, bias, activation, transposed)

    def on(self, x: Float32, transposed: bool) -> Callable[[], Any]:
        """The product alone, of an x that lies on the device already; (M, N) whichever way x lies."""
        torch: Any = importlib.import_module("torch")
        source = torch.from_numpy(np.array(x)).cuda()
        source = source.t() if transposed else source

        def call() -> Any:
            with torch.inference_mode():
                found = self._product(source)
            torch.cuda.synchronize()
            return found

        return call


@dataclass(frozen=True)
class CudaKernel(KernelInfo):
    """One library of the device.

    Attributes:
        make: Packs a matrix on the device: its bytes there, and the product.
        needs: Modules, beside torch.
        pip: What to install for them.
    """

    make: Callable[[SparseMatrix], tuple[int, Callable[[Any], Any]]] | None = None
    needs: tuple[str, ...] = ()
    pip: str | None = None
    x_dtype: str = "float32"
    sum_dtype: str = "float32"
    device: str = "cuda"

    def why_not(self) -> str | None:
        return no_gpu() or (missing(*self.needs, pip=self.pip) if self.needs else None)

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        if self.format == "nm" and not (isinstance(a, NM) and (a.n, a.m) == (2, 4)):
            return f"it takes nm of 2:4 and a is {a.name}; pass a.convert('nm', n=2, m=4)"
        if self.format == "nm" and (a.shape[0] % 64 or a.shape[1] % 64):
            return f"it takes nm with a shape in multiples of 64 and a has {a.shape}; pad it"
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> OnDevice:
        assert self.make is not None
        nbytes, product = self.make(a)
        return OnDevice(self.name, a.shape, nbytes, product)


@cache
def no_gpu() -> str | None:
    """The reason why torch has no GPU here; None where it has. torch is imported only where a driver is."""
    if not os.path.exists("/dev/nvidiactl") and not os.path.exists("/dev/dxg"):
        return "there is no NVIDIA GPU here (no /dev/nvidiactl)"
    if reason := missing("torch"):
        return reason
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        return f"torch {torch.__version__} finds no CUDA device; pip install torch with CUDA"
    return None


def cublas(a: SparseMatrix) -> tuple[int, Callable[[Any], Any]]:
    """torch.mm in float32 proper, not TF32, which keeps 11 bits."""
    torch: Any = importlib.import_module("torch")
    weight = torch.from_numpy(a.to_dense()).cuda()

    def product(x: Any) -> Any:
        before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
        try:
            return weight @ x
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return weight.nbytes, product


def cusparse(a: SparseMatrix) -> tuple[int, Callable[[Any], Any]]:
    """cusparseSpMM with the fastest of its algorithms for CSR, found when an N and a layout are first met."""
    cupy: Any = importlib.import_module("cupy")
    low: Any = importlib.import_module("cupy_backends.cuda.libs.cusparse")
    device: Any = importlib.import_module("cupy.cuda.device")
    high: Any = importlib.import_module("cupyx.cusparse")
    torch: Any = importlib.import_module("torch")
    sparse: Any = importlib.import_module("cupyx.scipy.sparse")
    found = csr_arrays("spmm_csr_f32_cusparse", a)
    arrays = tuple(cupy.asarray(array) for array in (found.data, found.indices, found.indptr))
    matrix = high.SpMatDescriptor.create(sparse.csr_matrix(arrays, shape=a.shape))
    one, zero = np.array(1.0, np.float32), np.array(0.0, np.float32)
    fastest: dict[tuple[int, bool], int] = {}

    def multiply(x: Any, algorithm: int) -> Any:
        # It takes both operands in one order; what is row-major is the transpose of a column-major one.
        by_row = x.is_contiguous()
        result = torch.empty((x.shape[1], a.shape[0]), device="cuda").t()
        right = cupy.asfortranarray(cupy.asarray(x)) if not by_row else cupy.asarray(x).T
        b = high.DnMatDescriptor.create(right)
        c = high.DnMatDescriptor.create(cupy.asarray(result))
        turned = low.CUSPARSE_OPERATION_TRANSPOSE if by_row else low.CUSPARSE_OPERATION_NON_TRANSPOSE
        words = (
            device.get_cusparse_handle(),
            low.CUSPARSE_OPERATION_NON_TRANSPOSE,
            turned,
            one.ctypes.data,
            matrix.desc,
            b.desc,
            zero.ctypes.data,
            c.desc,
            0,  # CUDA_R_32F
            algorithm,
        )
        space = cupy.empty(max(int(low.spMM_bufferSize(*words)), 1), np.int8)
        low.spMM(*words, space.data.ptr)
        return result

    def product(x: Any) -> Any:
        key = (x.shape[1], x.is_contiguous())
        if key not in fastest:
            fastest[key] = min((4, 5, 6), key=lambda algorithm: _time(lambda: multiply(x, algorithm)))
        return multiply(x, fastest[key])

    return sum(int(array.nbytes) for array in arrays), product


def _time(call: Callable[[], Any]) -> float:
    """Seconds of a call on the device, the second of two; infinite where it is refused."""
    torch: Any = importlib.import_module("torch")
    try:
        call()
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
    except RuntimeError:
        return float("inf")
    return time.perf_counter() - start


def cusparselt(a: SparseMatrix) -> tuple[int, Callable[[Any], Any]]:
    """torch's semi-structured tensors in bfloat16, the type of both operands and of the result."""
    torch: Any = importlib.import_module("torch")
    weight = torch.sparse.to_sparse_semi_structured(torch.from_numpy(a.to_dense()).cuda().bfloat16())
    return a.shape[0] * a.shape[1] * 9 // 8, lambda x: torch.mm(weight, x.bfloat16())


def pyg(a: SparseMatrix) -> tuple[int, Callable[[Any], Any]]:
    """torch_sparse.matmul, which PyTorch Geometric sums over edges with."""
    torch: Any = importlib.import_module("torch")
    package: Any = importlib.import_module("torch_sparse")
    found = csr_arrays("spmm_csr_f32_pyg", a)
    starts, columns = (torch.from_numpy(array.astype(np.int64)).cuda() for array in found[:2])
    weight = package.SparseTensor(
        rowptr=starts, col=columns, value=torch.from_numpy(found.data).cuda(), sparse_sizes=a.shape
    )
    return 8 * (starts.numel() + columns.numel()) + found.data.nbytes, lambda x: package.matmul(weight, x.contiguous())


registry.add(
    "spmm_dense_f32_cublas", CudaKernel("spmm_dense_f32_cublas", "dense", "float32", "cublas", "cublas", make=cublas)
)
registry.add(
    "spmm_csr_f32_cusparse",
    CudaKernel(
        *("spmm_csr_f32_cusparse", "csr", "float32", "cusparse", "cusparse"),
        make=cusparse,
        needs=("cupy",),
        pip="cupy-cuda12x",
    ),
)
registry.add(
    "spmm_nm_bf16_cusparselt",
    CudaKernel(
        *("spmm_nm_bf16_cusparselt", "nm", "bfloat16", "cusparselt", "cusparselt"),
        make=cusparselt,
        x_dtype="bfloat16",
        sum_dtype="bfloat16",
    ),
)
registry.add(
    "spmm_csr_f32_pyg",
    CudaKernel(
        *("spmm_csr_f32_pyg", "csr", "float32", "pyg", "pyg"), make=pyg, needs=("torch_sparse",), pip="torch-sparse"
    ),
)
