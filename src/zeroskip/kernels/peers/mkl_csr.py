"""oneMKL's inspector-executor CSR product, through ctypes on the `mkl` package of PyPI.

The matrix is handed over once with a hint of how it will be used, MKL optimises it, and every run is one call. The
transposed form costs nothing: rows of vectors are MKL's column-major layout.
"""

from __future__ import annotations

import ctypes
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ..._errors import KernelUnavailable
from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, num_threads, registry
from .._epilogue import finish
from ._common import CsrArrays, csr_arrays, too_large
from ._prepared import PeerPrepared

_NON_TRANSPOSED = 10
_GENERAL = 20
_ROW_MAJOR, _COLUMN_MAJOR = 101, 102
_EXPECTED_CALLS = 1000


class _Description(ctypes.Structure):
    """struct matrix_descr of mkl_spblas.h."""

    _fields_ = (("type", ctypes.c_int), ("mode", ctypes.c_int), ("diag", ctypes.c_int))


_DESCRIPTION = _Description(_GENERAL, 0, 0)


class MklCsr(PeerPrepared):
    """The handle of an optimised matrix; the arrays are kept because MKL reads them in place."""

    def __init__(self, kernel: str, shape: tuple[int, int], arrays: CsrArrays, n: int) -> None:
        self.kernel = kernel
        self.shape = shape
        self._arrays = arrays
        self._library = _load()
        self._handle = _create(self._library, shape, arrays)
        self._finalizer = weakref.finalize(self, self._library.mkl_sparse_destroy, self._handle)
        for layout in (_ROW_MAJOR, _COLUMN_MAJOR):
            self._library.mkl_sparse_set_mm_hint(
                self._handle, _NON_TRANSPOSED, _DESCRIPTION, layout, ctypes.c_int(n), ctypes.c_int(_EXPECTED_CALLS)
            )
        self._library.mkl_sparse_set_mv_hint(self._handle, _NON_TRANSPOSED, _DESCRIPTION, ctypes.c_int(_EXPECTED_CALLS))
        _check(kernel, "mkl_sparse_optimize", self._library.mkl_sparse_optimize(self._handle))

    @property
    def nbytes(self) -> int:
        """The arrays handed over; what MKL adds when it optimises cannot be asked for."""
        return self._arrays.nbytes

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        layout = _COLUMN_MAJOR if transposed else _ROW_MAJOR
        columns = x.shape[0] if transposed else x.shape[1]
        if columns == 1:
            self._vector(x, out)
            finish(out, bias, activation, transposed)
            return
        status = self._library.mkl_sparse_s_mm(
            _NON_TRANSPOSED,
            ctypes.c_float(1.0),
            self._handle,
            _DESCRIPTION,
            layout,
            ctypes.c_void_p(x.ctypes.data),
            ctypes.c_int(columns),
            ctypes.c_int(x.shape[1]),
            ctypes.c_float(0.0),
            ctypes.c_void_p(out.ctypes.data),
            ctypes.c_int(out.shape[1]),
        )
        _check(self.kernel, "mkl_sparse_s_mm", status)
        finish(out, bias, activation, transposed)

    def _vector(self, x: Float32, out: Float32) -> None:
        status = self._library.mkl_sparse_s_mv(
            _NON_TRANSPOSED,
            ctypes.c_float(1.0),
            self._handle,
            _DESCRIPTION,
            ctypes.c_void_p(x.ctypes.data),
            ctypes.c_float(0.0),
            ctypes.c_void_p(out.ctypes.data),
        )
        _check(self.kernel, "mkl_sparse_s_mv", status)


@dataclass(frozen=True)
class MklCsrKernel(KernelInfo):
    hint_n: int = 128

    def why_not(self) -> str | None:
        path = _library_path()
        if path is None:
            return "mkl is not installed; pip install mkl"
        try:
            _load()
        except OSError as error:
            return f"{path.name} cannot be loaded: {error}"
        return None

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> MklCsr:
        return MklCsr(self.name, a.shape, csr_arrays(self.name, a), self.hint_n)


@cache
def _library_path() -> Path | None:
    """libmkl_rt of the `mkl` package."""
    from importlib import metadata  # imports a dozen modules, and every start of the server comes by here

    try:
        files = metadata.files("mkl") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith(("libmkl_rt.so", "mkl_rt.", "libmkl_rt.2.dylib")) and not file.name.endswith(".lib"):
            found = Path(str(file.locate())).resolve()
            if found.exists():
                return found
    return None


@cache
def _load() -> Any:
    path = _library_path()
    if path is None:
        raise OSError("mkl is not installed")
    library = ctypes.CDLL(str(path))
    library.mkl_sparse_set_mm_hint.argtypes = [
        ctypes.c_void_p, ctypes.c_int, _Description, ctypes.c_int, ctypes.c_int, ctypes.c_int,
    ]  # fmt: skip
    library.mkl_sparse_optimize.argtypes = [ctypes.c_void_p]
    library.mkl_sparse_destroy.argtypes = [ctypes.c_void_p]
    library.mkl_sparse_s_mm.argtypes = [
        ctypes.c_int, ctypes.c_float, ctypes.c_void_p, _Description, ctypes.c_int, ctypes.c_void_p,
        ctypes.c_int, ctypes.c_int, ctypes.c_float, ctypes.c_void_p, ctypes.c_int,
    ]  # fmt: skip
    library.mkl_sparse_set_mv_hint.argtypes = [ctypes.c_void_p, ctypes.c_int, _Description, ctypes.c_int]
    library.mkl_sparse_s_mv.argtypes = [
        ctypes.c_int, ctypes.c_float, ctypes.c_void_p, _Description, ctypes.c_void_p, ctypes.c_float, ctypes.c_void_p,
    ]  # fmt: skip
    library.MKL_Set_Num_Threads(ctypes.c_int(num_threads()))
    return library


def _create(library: Any, shape: tuple[int, int], arrays: CsrArrays) -> ctypes.c_void_p:
    handle = ctypes.c_void_p()
    starts = arrays.indptr.ctypes.data
    status = library.mkl_sparse_s_create_csr(
        ctypes.byref(handle),
        ctypes.c_int(0),
        ctypes.c_int(shape[0]),
        ctypes.c_int(shape[1]),
        ctypes.c_void_p(starts),
        ctypes.c_void_p(starts + arrays.indptr.itemsize),
        ctypes.c_void_p(arrays.indices.ctypes.data),
        ctypes.c_void_p(arrays.data.ctypes.data),
    )
    _check("spmm_csr_f32_mkl", "mkl_sparse_s_create_csr", status)
    return handle


def _check(kernel: str, call: str, status: int) -> None:
    if status:
        raise KernelUnavailable(f"{kernel}: {call} returned status {status}; choose another kernel.")


registry.add("spmm_csr_f32_mkl", MklCsrKernel("spmm_csr_f32_mkl", "csr", "float32", "mkl", "mkl"))
