"""The native kernels over the edges of a graph: sums, attention with additive scores, and its pieces.

What each is called with, checked: a CSR, float32 arrays that are C-contiguous and fit each other, and a result of its
own to write. `x` is (sources, heads, features), scores and weights (entries, heads), `left` and `right` (nodes, heads).

    gspmm(graph, x, weights or None, reduce, out)
    gat(graph, x, left, right, slope, out)
    edge_softmax(graph, scores, out)
    sddmm_add(graph, left, right, out)
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial
from typing import Any

from ..formats import CSR
from ._base import Float32
from ._operations import OperationKernel, operations

_native: Any = importlib.import_module("zeroskip._native")

REDUCTIONS = ("sum", "mean", "max", "min")


def gspmm(isa: str, graph: CSR, x: Float32, weights: Float32 | None, reduce: str, out: Float32) -> None:
    """Reduce rows of x over the entries of each row of a graph."""
    _native.gspmm(isa, graph.indptr, graph.indices, x, weights, REDUCTIONS.index(reduce), out)


def _gat(isa: str, graph: CSR, x: Float32, left: Float32, right: Float32, slope: float, out: Float32) -> None:
    _native.gat(isa, graph.indptr, graph.indices, x, left, right, slope, out)


def _edge_softmax(isa: str, graph: CSR, scores: Float32, out: Float32) -> None:
    _native.edge_softmax(isa, graph.indptr, scores, out)


def _sddmm_add(isa: str, graph: CSR, left: Float32, right: Float32, out: Float32) -> None:
    _native.sddmm_add(isa, graph.indptr, graph.indices, left, right, out)


_FUNCTIONS: dict[str, tuple[Callable[..., None], str]] = {
    "gspmm": (gspmm, "sum, mean, max or min over the stored entries of a row"),
    "gat": (_gat, "attention with additive scores, one pass over the edges"),
    "edge_softmax": (_edge_softmax, "softmax over the stored entries of a row"),
    "sddmm_add": (_sddmm_add, "left + right of each entry"),
}

isas: list[tuple[str, str | None]] = [(isa, reason or None) for isa, reason in _native.graph_isas()]
for _isa, _reason in isas:
    for _op, (_function, _doc) in _FUNCTIONS.items():
        _name = f"{_op}_csr_f32_{_isa}"
        operations.add(
            _name,
            OperationKernel(_name, _op, "csr", "float32", _isa, "native", partial(_function, _isa), _reason, _doc),
        )
