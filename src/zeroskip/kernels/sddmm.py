"""The native kernels of SDDMM and masked softmax, one for each kind of pattern, value type and instruction set."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from ..formats import BSR, SparseMatrix
from ..formats._dtypes import SHORT, Array
from ._base import Float32
from ._operations import OperationKernel, operations

_native: Any = importlib.import_module("zeroskip._native")

_FORMATS = ("csr", "bsr", "bitmask")


# The native view of each pattern that is alive, with what calls have found out about it.
_views: WeakKeyDictionary[SparseMatrix, Any] = WeakKeyDictionary()


def new_view(pattern: SparseMatrix) -> Any:
    """A pattern as the native module takes it: kind, rows, columns, entries, arrays, and the two sizes of a block."""
    arrays = {name: getattr(pattern, name) for name in pattern.array_names if name != "data"}
    r, c = pattern.block if isinstance(pattern, BSR) else (1, 1)
    return _native.PatternView(pattern.name, *pattern.shape, pattern.data.size, arrays, r, c)


def view_of(pattern: SparseMatrix) -> Any:
    """The same one for all calls with `pattern`."""
    found = _views.get(pattern)
    return _views.setdefault(pattern, new_view(pattern)) if found is None else found


def _sddmm(
    isa: str,
    dtype: str,
    pattern: SparseMatrix,
    a: Array,
    b: Array,
    out: Float32,
    values: Float32 | None,
    alpha: float,
) -> None:
    _native.sddmm(isa, view_of(pattern), dtype, a, b, out, values, alpha)


class _Bound:
    """SDDMM for one pattern, with what the second call would make of it made already: `nbytes` beside its arrays."""

    def __init__(self, isa: str, dtype: str, pattern: SparseMatrix) -> None:
        self._isa, self._dtype, self._view = isa, dtype, new_view(pattern)
        self._view.prepare()
        self.nbytes: int = self._view.prepared_bytes

    def __call__(self, a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float) -> None:
        _native.sddmm(self._isa, self._view, self._dtype, a, b, out, values, alpha)


def _masked_softmax(
    isa: str, pattern: SparseMatrix, scores: Float32, out: Float32, scale: float, bias: Float32 | None
) -> None:
    _native.masked_softmax(isa, view_of(pattern), scores, out, bias, scale)


def _register(isa: str, reason: str | None) -> None:
    for format in _FORMATS:
        for dtype in ("float32", "bfloat16"):
            name = f"sddmm_{format}_{SHORT[dtype]}_{isa}"
            doc = "eight dots at a time, sums across lanes made together"
            work = partial(_sddmm, isa, dtype)
            bind = partial(_Bound, isa, dtype) if format == "csr" else None
            operations.add(name, OperationKernel(name, "sddmm", format, dtype, isa, "native", work, reason, doc, bind))
        name = f"masked_softmax_{format}_f32_{isa}"
        doc = "a row at a time, scale and bias fused"
        soft = partial(_masked_softmax, isa)
        operations.add(
            name, OperationKernel(name, "masked_softmax", format, "float32", isa, "native", soft, reason, doc)
        )


for _isa, _reason in _native.pattern_isas():
    _register(_isa, _reason)
