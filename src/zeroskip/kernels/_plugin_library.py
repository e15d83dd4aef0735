"""A shared library of a plug-in, through ctypes; `zeroskip_plugin.h` has the other half."""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .._errors import InvalidArgument, KernelUnavailable
from ._base import Float32, num_threads

ABI = 1
_CODES = {1: "it does not take this matrix or this n", 2: "it has no memory left", 3: "it failed"}
_POINTER = ctypes.c_void_p


class _Csr(ctypes.Structure):
    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("nnz", ctypes.c_int64),
        ("indptr", _POINTER),
        ("indices", _POINTER),
        ("data", _POINTER),
    )


class Library:
    """A library that was opened and has what it must have.

    Raises:
        InvalidArgument: If the file is not there.
        KernelUnavailable: If it cannot be opened, or lacks the function or the version; says why.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise InvalidArgument(f"{path} is no file; name one that was compiled with zeroskip_plugin.h")
        try:
            self._handle = ctypes.CDLL(str(Path(path).resolve()))
        except OSError as error:
            raise KernelUnavailable(f"cannot be opened: {error}") from None
        try:
            found = ctypes.c_int32.in_dll(self._handle, "zeroskip_plugin_abi").value
        except ValueError:
            raise KernelUnavailable("has no zeroskip_plugin_abi; write ZEROSKIP_PLUGIN once in it") from None
        if found != ABI:
            raise KernelUnavailable(
                f"is for version {found} of zeroskip_plugin.h, this is version {ABI}; compile it again"
            )
        matrix = ctypes.POINTER(_Csr)
        self.spmm = self._function(
            "zeroskip_spmm",
            (matrix, _POINTER, _POINTER, ctypes.c_int64, _POINTER, ctypes.c_int32),
        )
        if self.spmm is None:
            raise KernelUnavailable('has no function zeroskip_spmm; define it, in C++ as extern "C"')
        self.prepare = self._function(
            "zeroskip_prepare",
            (matrix, ctypes.c_int32, ctypes.POINTER(_POINTER), ctypes.POINTER(ctypes.c_int64)),
        )
        self.release = self._function("zeroskip_release", (_POINTER,), None)
        self._why_not = self._function("zeroskip_why_not", (), ctypes.c_char_p)

    def _function(self, name: str, arguments: tuple[Any, ...], result: Any = ctypes.c_int) -> Any:
        function = getattr(self._handle, name, None)
        if function is not None:
            function.argtypes, function.restype = arguments, result
        return function

    def why_not(self) -> str | None:
        """What the library says of this machine."""
        found = None if self._why_not is None else self._why_not()
        return None if found is None else found.decode("utf-8", "replace")

    def pack(self, kernel: str, shape: tuple[int, int], arrays: Sequence[Any]) -> Packed:
        """A matrix of indptr, indices and data, which it keeps alive."""
        return Packed(self, kernel, shape, arrays)


class Packed:
    """A matrix as the library holds it."""

    def __init__(self, library: Library, kernel: str, shape: tuple[int, int], arrays: Sequence[Any]) -> None:
        self.kernel = kernel
        self._library, self._arrays = library, arrays
        self._matrix = _Csr(*shape, arrays[1].size, *(array.ctypes.data for array in arrays))
        self._prepared, size = _POINTER(), ctypes.c_int64()
        if library.prepare is not None:
            made = library.prepare(self._matrix, num_threads(), ctypes.byref(self._prepared), ctypes.byref(size))
            self._check("zeroskip_prepare", made)
            if library.release is not None:
                weakref.finalize(self, _release, library, self._prepared, arrays)
        self.nbytes = int(size.value)

    def run(self, x: Float32, out: Float32) -> None:
        made = self._library.spmm(
            self._matrix, self._prepared, x.ctypes.data, x.shape[1], out.ctypes.data, num_threads()
        )
        self._check("zeroskip_spmm", made)

    def _check(self, name: str, code: int) -> None:
        if code:
            what = _CODES.get(code, "which zeroskip_plugin.h does not name")
            raise KernelUnavailable(f"{self.kernel}: {name} returned {code}: {what}; choose another kernel.")


def _release(library: Library, prepared: Any, arrays: Sequence[Any]) -> None:
    """Free what was packed, while the arrays that it may point to are there."""
    library.release(prepared)
