"""NVIDIA GPUs: cuBLAS and cuSPARSELt through torch, cuSPARSE through CuPy, and PyTorch Geometric's torch-sparse.

`run` copies x to the device and the result back; what is timed (`on`, by `seconds`) is the product of what lies there
already, by the device's own clock. `device` says that they are no rivals of a CPU.
"""

from __future__ import annotations

import importlib
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ..._errors import KernelUnavailable
from ...formats import NM, SparseMatrix
from ...formats._dtypes import Array
from .._base import Float32, KernelInfo, registry
from .._epilogue import finish
from .._operations import OperationKernel, operations
from ._common import csr_arrays, missing, too_large
from ._prepared import PeerPrepared

# Cycles that the device sleeps before a call is timed, about half a millisecond at first.
_HEAD_START, _MOST_HEAD_START = 1_000_000, 16_000_000
# The algorithms of cusparseSpMM for CSR, as its header numbers them.
_CSR_ALGORITHMS = (4, 6, 12)


def seconds(call: Callable[[], Any]) -> float:
    """Seconds that the device takes for what `call` queues, by its own clock.

    The device sleeps until all is queued; where that took longer, it is done again with a longer sleep.
    """
    torch: Any = importlib.import_module("torch")
    cycles = _HEAD_START
    while True:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda._sleep(cycles)
        start.record()
        call()
        end.record()
        late = start.query()
        end.synchronize()
        if not late or cycles >= _MOST_HEAD_START:
            return float(start.elapsed_time(end)) / 1e3
        cycles *= 4


@dataclass(frozen=True)
class Limits:
    """What a device can do at most.

    Attributes:
        name: Of the device.
        flops_per_s: Of a product of large matrices in float32 proper.
        bytes_per_s: Of a product with one vector, whose matrix no cache holds.
        l2_bytes: Of its last cache.
    """

    name: str
    flops_per_s: float
    bytes_per_s: float
    l2_bytes: int


def measure_limits(size: int = 8192) -> Limits:
    """The fastest of ten calls each; takes 2 GB of the device and about a second."""
    torch: Any = importlib.import_module("torch")
    a, b = (torch.randn(size, size, device="cuda") for _ in range(2))
    large, vector = torch.randn(4 * size, 2 * size, device="cuda"), torch.randn(2 * size, device="cuda")
    product = min(seconds(lambda: _float32_product(a, b)) for _ in range(10))
    read = min(seconds(lambda: torch.mv(large, vector)) for _ in range(10))
    found = torch.cuda.get_device_properties(0)
    return Limits(found.name, 2 * size**3 / product, 4 * large.numel() / read, int(found.L2_cache_size))


def _float32_product(a: Any, b: Any) -> Any:
    """torch.mm in float32 proper, not TF32, which keeps 11 bits."""
    torch: Any = importlib.import_module("torch")
    before, torch.backends.cuda.matmul.allow_tf32 = torch.backends.cuda.matmul.allow_tf32, False
    try:
        return torch.mm(a, b)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


class OnDevice(PeerPrepared):
    """A matrix on the device, and how it is multiplied there."""

    def __init__(
        self, kernel: str, shape: tuple[int, int], nbytes: int, product: Callable[[Any], Any], x_dtype: str
    ) -> None:
        self.kernel, self.shape, self.nbytes = kernel, shape, nbytes
        self._product, self._x_dtype = product, x_dtype

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        found = self.on(x, transposed)().float().cpu().numpy()
        out[...] = found.T if transposed else found
        finish(out, bias, activation, transposed)

    def on(self, x: Float32, transposed: bool) -> Callable[[], Any]:
        """The product alone, of an x that lies there already, in the kernel's type; (M, N) whichever way x lies.

        The call queues it and does not wait.
        """
        torch: Any = importlib.import_module("torch")
        source = torch.from_numpy(np.array(x)).cuda().to(getattr(torch, self._x_dtype))
        source = source.t() if transposed else source

        def call() -> Any:
            with torch.inference_mode():
                return self._product(source)

        return call

    seconds = staticmethod(seconds)


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
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> OnDevice:
        assert self.make is not None
        if reason := self.rejects(a, 1):
            raise KernelUnavailable(f"{self.name}: {reason}.")
        nbytes, product = self.make(a)
        return OnDevice(self.name, a.shape, nbytes, product, self.x_dtype)


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
    """The product of cuBLAS in float32 proper."""
    torch: Any = importlib.import_module("torch")
    weight = torch.from_numpy(a.to_dense()).cuda()
    return weight.nbytes, lambda x: _float32_product(weight, x)


def cublas_bfloat16(a: SparseMatrix) -> tuple[int, Callable[[Any], Any]]:
    """The same in bfloat16, the type of both operands and of the result, with sums in float32."""
    torch: Any = importlib.import_module("torch")
    weight = torch.from_numpy(a.to_dense()).cuda().bfloat16()

    def product(x: Any) -> Any:
        settings = torch.backends.cuda.matmul
        before, settings.allow_bf16_reduced_precision_reduction = settings.allow_bf16_reduced_precision_reduction, False
        try:
            return torch.mm(weight, x)
        finally:
            settings.allow_bf16_reduced_precision_reduction = before

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
    weight = sparse.csr_matrix(arrays, shape=a.shape)
    kept = weight, high.SpMatDescriptor.create(weight)  # the descriptor alone would not keep the arrays
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
            kept[1].desc,
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
            fastest[key] = min(_CSR_ALGORITHMS, key=lambda algorithm: _time(lambda: multiply(x, algorithm)))
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
    """torch's semi-structured tensors in bfloat16, the type of both operands and of the result.

    Shapes in multiples of 64 (8 columns of x) go as they are; others are padded with zeros, x in each call. Groups of
    fewer than two entries are filled with zeros, which are multiplied: a NaN or an infinity in x may reach more rows.
    """
    torch: Any = importlib.import_module("torch")
    pad = torch.nn.functional.pad
    rows, cols = a.shape
    more = -cols % 64
    dense = pad(torch.from_numpy(a.to_dense()).cuda().bfloat16(), (0, more, 0, -rows % 64))
    weight = torch.sparse.to_sparse_semi_structured(dense)
    torch.cuda.synchronize()  # before `dense` goes

    def product(x: Any) -> Any:
        n = x.shape[1]
        if more or n % 8:
            x = pad(x, (0, -n % 8, 0, more))
        return torch.mm(weight, x)[:rows, :n]

    return dense.numel() * 9 // 8, product


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
    "spmm_dense_bf16_cublas",
    CudaKernel(
        *("spmm_dense_bf16_cublas", "dense", "bfloat16", "cublas", "cublas"),
        make=cublas_bfloat16,
        x_dtype="bfloat16",
        sum_dtype="bfloat16",
    ),
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


class SddmmOnDevice:
    """What depends on a pattern alone, on the device, and the work of one of its libraries."""

    seconds = staticmethod(seconds)

    def __init__(self, multiply: Callable[[Any, Any], Any]) -> None:
        self._multiply = multiply

    def on(self, a: Array, b: Array) -> Callable[[], Any]:
        """The entries of a b^T, both (rows, depth) and on the device already. It does not wait."""
        torch: Any = importlib.import_module("torch")
        left, right = (torch.from_numpy(np.array(x)).cuda() for x in (a, b))

        def call() -> Any:
            with torch.inference_mode():
                return self._multiply(left, right)

        return call

    def __call__(self, a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float) -> None:
        """As `ops.sddmm` calls its kernels."""
        if not out.size:
            return
        lines = out.reshape(-1, out.shape[-1])
        lefts, rights = (x.reshape(-1, *x.shape[-2:]) for x in (a, b))
        for line, left, right in zip(lines, lefts, rights, strict=True):
            line[:] = self.on(left, right)().cpu().numpy()
        out *= np.float32(alpha)
        if values is not None:
            out *= values


def sddmm_cusparse(pattern: SparseMatrix) -> SddmmOnDevice:
    """cusparseSDDMM by torch.sparse.sampled_addmm, into the tensor that holds the pattern."""
    torch: Any = importlib.import_module("torch")
    found = csr_arrays("sddmm_csr_f32_cusparse", pattern)
    starts, columns, data = (torch.from_numpy(array).cuda() for array in found)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "sparse CSR support is in beta"
        mask = torch.sparse_csr_tensor(starts, columns, data, size=pattern.shape)

    def multiply(a: Any, b: Any) -> Any:
        return torch.sparse.sampled_addmm(mask, a, b.t(), beta=0.0, out=mask).values()

    return SddmmOnDevice(multiply)


def sddmm_cublas(pattern: SparseMatrix) -> SddmmOnDevice:
    """The whole product in float32 proper, of which the entries are picked."""
    torch: Any = importlib.import_module("torch")
    rows, cols, _ = pattern.entries()
    places = torch.from_numpy(rows * pattern.shape[1] + cols).cuda()
    return SddmmOnDevice(lambda a, b: _float32_product(a, b.t()).view(-1).index_select(0, places))


def _add_sddmm(name: str, origin: str, bind: Callable[[SparseMatrix], SddmmOnDevice], doc: str) -> None:
    def function(pattern: SparseMatrix, *given: Any) -> None:
        bind(pattern)(*given)

    kernel = OperationKernel(
        name, "sddmm", "csr", "float32", origin, origin, function, no_gpu(), doc, bind=bind, device="cuda"
    )
    operations.add(name, kernel)


_add_sddmm("sddmm_csr_f32_cusparse", "cusparse", sddmm_cusparse, "torch.sparse.sampled_addmm")
_add_sddmm("sddmm_csr_f32_cublas_dense", "cublas", sddmm_cublas, "torch.mm, then index_select")
