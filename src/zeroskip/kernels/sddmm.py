"""The native kernels of SDDMM and masked softmax, one for each kind of pattern, value type and instruction set."""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

from ..formats import BSR, SparseMatrix
from ..formats._dtypes import SHORT, Array
from ._base import Float32
from ._operations import OperationKernel, operations

_native: Any = importlib.import_module("zeroskip._native")

_FORMATS = ("csr", "bsr", "bitmask")


def parts(pattern: SparseMatrix) -> tuple[str, int, int, int, dict[str, Array], int, int]:
    """A pattern as the native module takes it: kind, rows, columns, entries, arrays, and the two sizes of a block."""
    arrays = {name: getattr(pattern, name) for name in pattern.array_names if name != "data"}
    r, c = pattern.block if isinstance(pattern, BSR) else (1, 1)
    return pattern.name, *pattern.shape, pattern.data.size, arrays, r, c


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
    _native.sddmm(isa, *parts(pattern), dtype, a, b, out, values, alpha)


def _masked_softmax(
    isa: str, pattern: SparseMatrix, scores: Float32, out: Float32, scale: float, bias: Float32 | None
) -> None:
    _native.masked_softmax(isa, *parts(pattern), scores, out, bias, scale)


def _register(isa: str, reason: str | None) -> None:
    for format in _FORMATS:
        for dtype in ("float32", "bfloat16"):
            name = f"sddmm_{format}_{SHORT[dtype]}_{isa}"
            doc = "eight dots at a time, sums across lanes made together"
            work = partial(_sddmm, isa, dtype)
            operations.add(name, OperationKernel(name, "sddmm", format, dtype, isa, "native", work, reason, doc))
        name = f"masked_softmax_{format}_f32_{isa}"
        doc = "a row at a time, scale and bias fused"
        soft = partial(_masked_softmax, isa)
        operations.add(
            name, OperationKernel(name, "masked_softmax", format, "float32", isa, "native", soft, reason, doc)
        )


for _isa, _reason in _native.pattern_isas():
    _register(_isa, _reason)
