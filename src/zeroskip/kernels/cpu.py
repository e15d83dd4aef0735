"""The native kernels of this processor, from `zeroskip._native`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import BSR, COO, CSC, CSR, DIA, ELL, INTEGERS, NM, SELL, VNM, DenseMatrix, SparseMatrix, dense_codes
from ..formats._dtypes import Array
from ._base import Float32, registry, too_large_in_full

_native: Any = importlib.import_module("zeroskip._native")


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
        x_dtype: What it rounds x to: float32, as it comes; bfloat16; int8 and int16, and products of codes are added in
            integers.
    """

    name: str
    op: str
    format: str
    dtype: str
    isa: str
    reason: str | None
    doc: str
    x_dtype: str = "float32"
    origin: str = "native"

    def why_not(self) -> str | None:
        return self.reason

    def rejects(self, a: SparseMatrix, n: int) -> str | None:
        if self.dtype in INTEGERS and (reason := self._rejects_codes(a)):
            return reason
        if self.format in _NEEDS and a.name != self.format:
            needs = _NEEDS[self.format]
            return f"it takes {self.format} only and a is {a.name}; pass a.convert({self.format!r}{needs})"
        if reason := self._rejects_graphs(a):
            return reason
        if isinstance(a, BSR) and self.format == "bsr" and a.block[0] % 4 and self.isa != "scalar":
            return f"it takes blocks of 4, 8, ... rows and a has {a.block[0]}; pass a.convert('bsr', block=(4, 1))"
        return None

    def _rejects_graphs(self, a: SparseMatrix) -> str | None:
        """What counts entries for each row and block of columns is no place for a large graph."""
        if self.format == "dense":
            return too_large_in_full(a)
        if self.format not in ("csr", "bitmask") or self.name.endswith("_n1"):
            return None
        rows, cols = a.shape
        nbytes = rows * cols // 8 if self.format == "bitmask" else 8 * rows * (-(-cols // _BLOCK_COLUMNS))
        if nbytes <= max(_MOST_COUNTS, 16 * 4 * a.nnz):
            return None
        return (
            f"its blocks of columns would take {nbytes / 1e9:.1f} GB beside the entries; use ops.gspmm, made for graphs"
        )

    def _rejects_codes(self, a: SparseMatrix) -> str | None:
        """What kernels that hold codes ask of a matrix; those of whole rows scale a row's sum, once."""
        if a.dtype != self.dtype or a.scales is None:
            return f"it takes {self.dtype} codes and a is {a.dtype}; quantise it: quantize.quantize(a, {self.dtype!r})"
        rows = self.name.endswith("_n1")
        if (self.x_dtype == "int8" or rows) and not a.scales.symmetric:
            return "it takes symmetric codes and a has zero points; quantise it with symmetric=True"
        if rows and a.scales.group:
            return f"it takes one scale a row and a has one for each {a.scales.group} columns; quantise it with group=0"
        if self.x_dtype == "int8" and self.format == "nm" and not (isinstance(a, NM) and 16 % a.m == 0):
            found = f"{a.n}:{a.m}" if isinstance(a, NM) else a.name
            return f"it takes N:M with M of 2, 4, 8 or 16 and a is {found}; pass a.convert('nm', n=..., m=16)"
        return None

    def prepare(self, a: SparseMatrix) -> NativePrepared:
        kind, arrays, dtype, params = source_of(self._form(a))
        return NativePrepared(a.shape, _native.pack(self.name, a.shape[0], a.shape[1], kind, arrays, dtype, params))

    def _form(self, a: SparseMatrix) -> SparseMatrix | DenseMatrix:
        """The matrix with the values and in the format that this kernel packs."""
        source = a if a.scales is None or self.dtype in INTEGERS else a.astype("float32")
        if self.format == "dense":
            return dense_codes(source) if self.x_dtype == "int8" else DenseMatrix(source.to_dense(), "float32")
        return source.convert(self.format) if self.format in ("csr", "bitmask") else source


def source_of(a: SparseMatrix | DenseMatrix) -> tuple[str, dict[str, Array], str, dict[str, int]]:
    """Kind, arrays, value type and parameters as the native module takes them; views where types agree.

    It reads matrices row by row: COO, CSC and DIA are handed over as CSR, the zeros on DIA's diagonals among them.
    """
    kind, arrays, params = a.name, {**a.arrays(), "data": _bits(a.data)}, {}
    if isinstance(a, COO | CSC | DIA):
        rows, cols, data = a.entries()
        indptr = np.zeros(a.shape[0] + 1, dtype=np.int64)
        np.cumsum(np.bincount(rows, minlength=a.shape[0]), out=indptr[1:])
        kind, arrays = "csr", {"indptr": indptr, "indices": cols.astype(np.int32), "data": _bits(data)}
    elif isinstance(a, CSR | ELL | SELL):
        arrays["indices"] = a.indices.astype(np.int32, copy=False)
    if isinstance(a, SELL):
        arrays["rows"] = a.rows.astype(np.int32, copy=False)
        params = {"c": a.c}
    elif isinstance(a, ELL):
        params = {"width": a.indices.shape[1]}
    elif isinstance(a, BSR):
        params = {"r": a.block[0], "c": a.block[1]}
    elif isinstance(a, NM | VNM):
        params = dict(a.params)
    if a.scales is not None:
        arrays |= {**a.scales.arrays(), "scales": _bits(a.scales.values)}
        params["group"] = a.scales.group
    return kind, arrays, a.dtype, params


def _bits(data: Array) -> Array:
    """Values as the native module takes them: float16 as its bit patterns, like bfloat16."""
    return data.view(np.uint16) if data.dtype == np.float16 else data


# Formats whose kernels take nothing else, and what a conversion to them is told. Some are a pattern that few matrices
# have. The others are there for those who hold such a matrix: for any other, CSR and bitmask have vector kernels, and
# "auto" need not weigh portable ones.
# Columns of a block of CSR (native/kernels/spmm/cells.cc), and how many bytes of counts are no matter.
_BLOCK_COLUMNS, _MOST_COUNTS = 256, 2**28
_NEEDS = {
    "bsr": ", block=(r, c)",
    "nm": ", n=..., m=...",
    "vnm": ", v=..., n=..., m=...",
    "ell": "",
    "sell": "",
    "csc": "",
    "dia": "",
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
                x_dtype=_row["x_dtype"],
            ),
        )
