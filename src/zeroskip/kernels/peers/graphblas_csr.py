"""SuiteSparse:GraphBLAS through `suitesparse-graphblas` of PyPI, without a layer of Python objects between.

All matrices are held by row, and a full C of zeros is added to: that is the case that the library has vector code for
(its saxpy5; dot4 where the vectors lie in rows). Without the addition the same product took 16 ms instead of 1.0, for
1024 x 1024 at 90 % and N = 128 on two Zen 3 cores. x and C are matrices of the library, as they are in its own
programs; `run` copies to and from them, and what is timed (`on`) does not.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from ..._errors import KernelUnavailable
from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, num_threads, registry
from .._epilogue import finish
from ._common import csr_arrays, missing, too_large
from ._prepared import PeerPrepared

_NAME = "spmm_csr_f32_graphblas"
# "OMP: Error #15" when it starts in a process where AOCL has run and oneMKL is loaded (10.5.1, 5.3.0, 2026.2).
_CLASH = "the OpenMP runtimes of aoclda and mkl in one process abort it; pip uninstall aoclda"


class GraphBlasCsr(PeerPrepared):
    """A, held by row."""

    def __init__(self, kernel: str, a: SparseMatrix) -> None:
        gb = _library()
        self.kernel, self.shape = kernel, a.shape
        found = csr_arrays(kernel, a)
        arrays = found.indptr.astype(np.uint64), found.indices.astype(np.uint64), found.data
        places = [gb.ffi.cast("GrB_Index *", array.ctypes.data) for array in arrays[:2]]
        values = gb.ffi.cast("float *", arrays[2].ctypes.data)
        sizes = [array.size for array in arrays]
        self._handle = gb.ffi.new("GrB_Matrix *")
        _call("GrB_Matrix_import_FP32", self._handle, gb.lib.GrB_FP32, *a.shape, *places, values, *sizes, _csr())
        self._finalizer = weakref.finalize(self, gb.lib.GrB_Matrix_free, self._handle)
        _call("GrB_Matrix_wait", self._handle[0], gb.lib.GrB_MATERIALIZE)

    @property
    def nbytes(self) -> int:
        """What the library says that the matrix takes."""
        size = _library().ffi.new("size_t *")
        _call("GxB_Matrix_memoryUsage", size, self._handle[0])
        return int(size[0])

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        _copy_out(self.on(x, transposed)(), out)
        finish(out, bias, activation, transposed)

    def on(self, x: Float32, transposed: bool) -> Callable[[], Any]:
        """The product alone, of an x that is a matrix of the library already, into another."""
        gb = _library()
        rows = self.shape[0]
        shape = (x.shape[0], rows) if transposed else (rows, x.shape[1])
        source, result = _full(x), _full(np.zeros(shape, np.float32))
        everything = gb.lib.GrB_ALL
        zero = 0.0, everything, shape[0], everything, shape[1], gb.ffi.NULL
        operands = (source[0], self._handle[0]) if transposed else (self._handle[0], source[0])
        descriptor = gb.lib.GrB_DESC_T1 if transposed else gb.ffi.NULL
        how = gb.lib.GrB_PLUS_FP32, gb.lib.GrB_PLUS_TIMES_SEMIRING_FP32

        def call() -> Any:
            _call("GrB_Matrix_assign_FP32", result[0], gb.ffi.NULL, gb.ffi.NULL, *zero)
            _call("GrB_mxm", result[0], gb.ffi.NULL, *how, *operands, descriptor)
            _call("GrB_Matrix_wait", result[0], gb.lib.GrB_MATERIALIZE)
            assert source is not None  # the handle frees x, so it lives as long as this function
            return result

        return call


class GraphBlasCsrKernel(KernelInfo):
    def why_not(self) -> str | None:
        reason = missing("suitesparse_graphblas", pip="suitesparse-graphblas")
        if reason is None and not missing("aoclda") and _has_mkl():
            return _CLASH
        return reason

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> GraphBlasCsr:
        return GraphBlasCsr(self.name, a)


@cache
def _has_mkl() -> bool:
    """Whether the `mkl` package is installed, which is a library and no module."""
    from importlib import metadata

    try:
        return bool(metadata.version("mkl"))
    except metadata.PackageNotFoundError:
        return False


@cache
def _library() -> Any:
    """The package, initialised as NumPy's memory manager, with the threads that everything here has."""
    gb = importlib.import_module("suitesparse_graphblas")
    if not gb.is_initialized():
        gb.initialize(memory_manager="numpy")
    status = gb.lib.GrB_Global_set_INT32(gb.lib.GrB_GLOBAL, num_threads(), gb.lib.GxB_NTHREADS)
    if status:
        raise KernelUnavailable(f"{_NAME}: the threads of GraphBLAS cannot be set (status {status}).")
    return gb


def _csr() -> int:
    return int(_library().lib.GrB_CSR_FORMAT)


def _full(array: Float32) -> Any:
    """A matrix of the library, by row, every element stored; it owns a copy of the array and frees it at the end."""
    gb = _library()
    handle = gb.ffi.gc(gb.ffi.new("GrB_Matrix *"), gb.lib.GrB_Matrix_free)
    _call("GrB_Matrix_new", handle, gb.lib.GrB_FP32, *array.shape)
    copy = array.flatten()
    pointer = gb.ffi.new("void **", gb.ffi.cast("void *", copy.ctypes.data))
    _call("GxB_Matrix_pack_FullR", handle[0], pointer, copy.nbytes, False, gb.ffi.NULL)
    gb.utils.unclaim_buffer(copy)
    return handle


def _copy_out(handle: Any, out: Float32) -> None:
    """Take the elements out of a full matrix, which is empty then."""
    gb = _library()
    pointer, size, iso = gb.ffi.new("void **"), gb.ffi.new("GrB_Index *"), gb.ffi.new("bool *")
    _call("GxB_Matrix_unpack_FullR", handle[0], pointer, size, iso, gb.ffi.NULL)
    found = gb.utils.claim_buffer(gb.ffi, pointer[0], int(size[0]) // 4, np.dtype(np.float32))
    out[...] = found[0] if iso[0] else found[: out.size].reshape(out.shape)


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_library().lib, name)(*arguments)
    if status:
        raise KernelUnavailable(f"{_NAME}: {name} returned status {status}; choose another kernel.")


registry.add(_NAME, GraphBlasCsrKernel(_NAME, "csr", "float32", "graphblas", "graphblas"))
