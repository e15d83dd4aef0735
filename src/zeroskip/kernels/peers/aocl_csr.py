"""AMD's AOCL-Sparse CSR product, through ctypes on the library that the `aoclda` package of PyPI carries.

The matrix is handed over once with a hint of how it will be used and optimised; one column is its matrix-vector call,
more are its matrix-matrix call. Rows of vectors are its column-major order.
"""

from __future__ import annotations

import ctypes
import os
import weakref
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ..._errors import KernelUnavailable
from ...formats import SparseMatrix
from .._base import Float32, KernelInfo, num_threads, registry
from .._epilogue import finish
from ._common import CsrArrays, csr_arrays, missing, too_large
from ._prepared import PeerPrepared

_NAME = "spmm_csr_f32_aocl"
_NON_TRANSPOSED = 111
_ZERO_BASED = 0
_ROW_MAJOR, _COLUMN_MAJOR = 0, 1
_EXPECTED_CALLS = 1000

_POINTER, _INT, _FLOAT = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
_SIGNATURES = {
    "create_mat_descr": (_POINTER,),
    "create_scsr": (_POINTER, _INT, _INT, _INT, _INT, _POINTER, _POINTER, _POINTER),
    "set_mm_hint": (_POINTER, _INT, _POINTER, _INT),
    "set_mv_hint": (_POINTER, _INT, _POINTER, _INT),
    "optimize": (_POINTER,),
    "scsrmm": (_INT, _FLOAT, _POINTER, _POINTER, _INT, _POINTER, _INT, _INT, _FLOAT, _POINTER, _INT),
    "smv": (_INT, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER, _POINTER),
    "destroy": (_POINTER,),
}
_ONE, _ZERO = ctypes.c_float(1.0), ctypes.c_float(0.0)


class AoclCsr(PeerPrepared):
    """The handle of an optimised matrix; the arrays are kept because the library may read them in place."""

    def __init__(self, kernel: str, shape: tuple[int, int], arrays: CsrArrays) -> None:
        self.kernel = kernel
        self.shape = shape
        self._arrays = arrays
        self._handle, self._description = ctypes.c_void_p(), _description()
        _call(
            "create_scsr",
            ctypes.byref(self._handle),
            _ZERO_BASED,
            *shape,
            arrays.indices.size,
            *(array.ctypes.data for array in arrays),
        )
        self._finalizer = weakref.finalize(self, _call, "destroy", ctypes.byref(self._handle))
        for hint in ("set_mm_hint", "set_mv_hint"):
            _call(hint, self._handle, _NON_TRANSPOSED, self._description, _EXPECTED_CALLS)
        _call("optimize", self._handle)

    @property
    def nbytes(self) -> int:
        """The arrays handed over; what the library adds when it optimises cannot be asked for."""
        return self._arrays.nbytes

    def compute(self, x: Float32, out: Float32, bias: Float32 | None, activation: str | None, transposed: bool) -> None:
        columns = x.shape[0] if transposed else x.shape[1]
        source, result = x.ctypes.data, out.ctypes.data
        if columns == 1 and np.isfinite(x).all():  # smv lets a NaN reach rows that do not meet it (5.3.0)
            one, zero = ctypes.byref(_ONE), ctypes.byref(_ZERO)
            _call("smv", _NON_TRANSPOSED, one, self._handle, self._description, source, zero, result)
        else:
            order = _COLUMN_MAJOR if transposed else _ROW_MAJOR
            out.fill(0.0)  # it multiplies by beta = 0, so a NaN that was there would stay (5.3.0)
            matrix = (_NON_TRANSPOSED, 1.0, self._handle, self._description, order)
            _call("scsrmm", *matrix, source, columns, x.shape[1], 0.0, result, out.shape[1])
        finish(out, bias, activation, transposed)


@dataclass(frozen=True)
class AoclCsrKernel(KernelInfo):
    def why_not(self) -> str | None:
        path = _library_path()
        if path is None:
            return missing("aoclda") or "the package aoclda holds no libaoclsparse"
        try:
            _load()
        except OSError as error:
            return f"{path.name} cannot be loaded: {error}"
        return None

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        return too_large(a)

    def prepare(self, a: SparseMatrix) -> AoclCsr:
        return AoclCsr(self.name, a.shape, csr_arrays(self.name, a))


@cache
def _library_path() -> Path | None:
    """libaoclsparse of the `aoclda` package."""
    from importlib import metadata  # imports a dozen modules, and every start of the server comes by here

    try:
        files = metadata.files("aoclda") or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name.startswith("libaoclsparse") and ".so" in file.name:
            found = Path(str(file.locate())).resolve()
            if found.exists():
                return found
    return None


@cache
def _load() -> Any:
    path = _library_path()
    if path is None:
        raise OSError("aoclda is not installed")
    os.environ.setdefault("AOCLSPARSE_NUM_THREADS", str(num_threads()))  # it reads this once
    library = _open(path)
    for name, types in _SIGNATURES.items():
        function = getattr(library, f"aoclsparse_{name}")
        function.argtypes, function.restype = types, _INT
    return library


def _open(path: Path) -> ctypes.CDLL:
    """The library, behind what it needs of the libraries beside it: it does not say where they lie.

    One opens when all that it needs itself are open. libaocl-da is left out: it needs this one, not this one it.
    """
    beside = (found for found in path.parent.glob("*.so*") if found != path)
    waiting = sorted(found for found in beside if not found.name.startswith("libaocl-da"))
    while waiting:
        left = [found for found in waiting if not _opens(found)]
        if len(left) == len(waiting):
            break
        waiting = left
    return ctypes.CDLL(str(path))


def _opens(path: Path) -> bool:
    try:
        ctypes.CDLL(str(path))
    except OSError:
        return False
    return True


@cache
def _description() -> ctypes.c_void_p:
    """A general matrix with indices from 0, which is what a new description says."""
    found = ctypes.c_void_p()
    _call("create_mat_descr", ctypes.byref(found))
    return found


def _call(name: str, *arguments: Any) -> None:
    status = getattr(_load(), f"aoclsparse_{name}")(*arguments)
    if status:
        raise KernelUnavailable(f"{_NAME}: aoclsparse_{name} returned status {status}; choose another kernel.")


registry.add(_NAME, AoclCsrKernel(_NAME, "csr", "float32", "aocl", "aocl"))
