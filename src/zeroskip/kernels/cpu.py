"""The native kernels of this processor, from `zeroskip._native`."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import BSR, CSR, ELL, INTEGERS, NM, SELL, VNM, Bitmask, SparseMatrix
from ..formats._dtypes import Array
from ._base import Float32, registry

_native: Any = importlib.import_module("zeroskip._native")

Source = tuple[dict[str, Array], str, dict[str, int]]


@dataclass(frozen=True)
class NativePrepared:
    """A matrix packed by the native module; `packed` is what a native program takes."""

    shape: tuple[int, int]
    packed: Any

    @property
    def kernel(self) -> str:
        """The kernel that the native module will run, by its own account."""
        return str(self.packed.kernel)

    @property
    def nbytes(self) -> int:
        return int(self.packed.nbytes)

    def run(
        self,
        x: Float32,
        out: Float32,
        *,
        bias: Float32 | None = None,
        activation: str | None = None,
        transposed: bool = False,
    ) -> None:
        _native.run(self.packed, x, out, bias, activation or "none", transposed)


@dataclass(frozen=True)
class NativeKernel:
    """One line of the native kernel table.

    Attributes:
        integer: Whether it rounds x to int8 and adds products of codes in integers.
    """

    name: str
    op: str
    format: str
    dtype: str
    isa: str
    reason: str | None
    doc: str
    integer: bool = False
    origin: str = "native"

    def why_not(self) -> str | None:
        return self.reason

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        if self.dtype in INTEGERS and (reason := self._rejects_codes(a)):
            return reason
        if self.format in _NEEDS and a.name != self.format:
            needs = _NEEDS[self.format]
            return f"it takes {self.format} only and a is {a.name}; pass a.convert({self.format!r}{needs})"
        if isinstance(a, BSR) and self.format == "bsr" and a.block[0] % 4 and self.isa != "scalar":
            return f"it takes blocks of 4, 8, ... rows and a has {a.block[0]}; pass a.convert('bsr', block=(4, 1))"
        return None

    def _rejects_codes(self, a: SparseMatrix) -> str | None:
        """What kernels that hold codes ask of a matrix; those of whole rows scale a row's sum, once."""
        if a.dtype != self.dtype or a.scales is None:
            return f"it takes {self.dtype} codes and a is {a.dtype}; quantise it: quantize.quantize(a, {self.dtype!r})"
        rows = self.name.endswith("_n1")
        if (self.integer or rows) and not a.scales.symmetric:
            return "it takes symmetric codes and a has zero points; quantise it with symmetric=True"
        if rows and a.scales.group:
            return f"it takes one scale a row and a has one for each {a.scales.group} columns; quantise it with group=0"
        if self.integer and self.format == "nm" and not (isinstance(a, NM) and 16 % a.m == 0):
            found = f"{a.n}:{a.m}" if isinstance(a, NM) else a.name
            return f"it takes N:M with M of 2, 4, 8 or 16 and a is {found}; pass a.convert('nm', n=..., m=16)"
        return None

    def prepare(self, a: SparseMatrix) -> NativePrepared:
        source = a if a.scales is None or self.dtype in INTEGERS else a.astype("float32")
        read = _dense_codes if self.integer and self.format == "dense" else _SOURCES[self.format]
        arrays, dtype, params = read(source)
        if source.scales is not None:
            arrays = {**arrays, **source.scales.arrays(), "scales": _bits(source.scales.values)}
            params = {**params, "group": source.scales.group}
        kind = "csr" if self.format in _BY_ROWS else self.format
        packed = _native.pack(self.name, a.shape[0], a.shape[1], kind, arrays, dtype, params)
        return NativePrepared(a.shape, packed)


def _bits(data: Array) -> Array:
    """Values as the native module takes them: float16 as its bit patterns, like bfloat16."""
    return data.view(np.uint16) if data.dtype == np.float16 else data


def _csr(a: SparseMatrix) -> Source:
    csr = a if isinstance(a, CSR) else CSR.from_coo(a.to_coo())
    indices = csr.indices.astype(np.int32, copy=False)
    return {"indptr": csr.indptr, "indices": indices, "data": _bits(csr.data)}, csr.dtype, {}


def _bitmask(a: SparseMatrix) -> Source:
    mask = a if isinstance(a, Bitmask) else Bitmask.from_coo(a.to_coo())
    return {"bits": mask.bits, "data": _bits(mask.data)}, mask.dtype, {}


def _dense(a: SparseMatrix) -> Source:
    return {"data": a.to_dense()}, "float32", {}


def _dense_codes(a: SparseMatrix) -> Source:
    entries = a.entries()
    codes = np.zeros(a.shape, dtype=np.int8)
    codes[entries.rows, entries.cols] = entries.data
    return {"data": codes}, a.dtype, {}


def _bsr(a: SparseMatrix) -> Source:
    assert isinstance(a, BSR), "rejects() lets nothing else through"
    r, c = a.block
    return {"indptr": a.indptr, "indices": a.indices, "data": _bits(a.data)}, a.dtype, {"r": r, "c": c}


def _nm(a: SparseMatrix) -> Source:
    assert isinstance(a, NM), "rejects() lets nothing else through"
    return {"data": _bits(a.data), "indices": a.indices}, a.dtype, {"n": a.n, "m": a.m}


def _by_rows(a: SparseMatrix) -> Source:
    """CSR of all stored entries, padding included: for what cannot be read row by row where it lies."""
    rows, cols, data = a.entries()
    indptr = np.zeros(a.shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=a.shape[0]), out=indptr[1:])
    return {"indptr": indptr, "indices": cols.astype(np.int32), "data": _bits(data)}, a.dtype, {}


def _slots(a: SparseMatrix) -> Source:
    assert isinstance(a, ELL | SELL), "rejects() lets nothing else through"
    arrays = {**a.arrays(), "data": _bits(a.data), "indices": a.indices.astype(np.int32, copy=False)}
    if isinstance(a, ELL):
        return arrays, a.dtype, {"width": a.indices.shape[1]}
    return {**arrays, "rows": a.rows.astype(np.int32, copy=False)}, a.dtype, {"c": a.c}


def _vnm(a: SparseMatrix) -> Source:
    assert isinstance(a, VNM), "rejects() lets nothing else through"
    return {**a.arrays(), "data": _bits(a.data)}, a.dtype, {"v": a.v, "n": a.n, "m": a.m}


# Formats whose kernels take nothing else, and what a conversion to them is told. Some are a pattern that few matrices
# have. The others are there for those who hold such a matrix: for any other, CSR and bitmask have vector kernels, and
# "auto" need not weigh portable ones.
_NEEDS = {
    "bsr": ", block=(r, c)",
    "nm": ", n=..., m=...",
    "vnm": ", v=..., n=..., m=...",
    "ell": "",
    "sell": "",
    "csc": "",
    "dia": "",
}
_BY_ROWS = ("csc", "dia")
_SOURCES: dict[str, Callable[[SparseMatrix], Source]] = {
    "csr": _csr,
    "bitmask": _bitmask,
    "dense": _dense,
    "bsr": _bsr,
    "nm": _nm,
    "vnm": _vnm,
    "ell": _slots,
    "sell": _slots,
    "csc": _by_rows,
    "dia": _by_rows,
}


def cpu_info() -> dict[str, Any]:
    """The processor as the native module sees it: arch, isas, selected, threads, cache sizes, model_name."""
    info: dict[str, Any] = _native.cpu_info()
    return info


def set_num_threads(count: int) -> None:
    """Threads that native kernels use, for the whole process."""
    _native.set_num_threads(count)


def get_num_threads() -> int:
    """Threads that native kernels use."""
    return int(_native.get_num_threads())


for _row in _native.kernels():
    if _row["op"] == "spmm":
        registry.add(
            _row["name"],
            NativeKernel(
                name=_row["name"],
                op=_row["op"],
                format=_row["format"],
                dtype=_row["dtype"],
                isa=_row["isa"],
                reason=_row["why_not"],
                doc=_row.get("doc", ""),
                integer=_row["integer"],
            ),
        )
