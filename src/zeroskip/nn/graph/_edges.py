"""The edges of a call: what was passed, as tensors for torch and as CSR for the kernels."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._errors import DtypeError, InvalidArgument, ShapeError
from ...formats import CSR, SparseMatrix
from ...ops import from_edges
from ...ops.gspmm import as_csr


@dataclass
class Edges:
    """Edges of `nodes` nodes, as (2, E) tensor or as graph; the other is made when it is asked for."""

    nodes: int
    index: torch.Tensor | None = None
    weight: torch.Tensor | None = None
    given: CSR | None = None
    derived: dict[Any, Any] = field(default_factory=dict)

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Sources, targets and weights of the edges. Those of a graph are its values."""
        if self.index is not None:
            return self.index[0], self.index[1], self.weight
        assert self.given is not None
        rows, cols = self.given.places()
        return torch.from_numpy(cols), torch.from_numpy(rows), torch.from_numpy(self.given.decoded().copy())

    def graph(self) -> CSR:
        """The CSR; edges that are there several times are one, with the sum of their weights."""
        if self.given is not None:
            return self.given
        if "graph" not in self.derived:
            assert self.index is not None
            weight = None if self.weight is None else self.weight.detach().float()
            self.derived["graph"] = from_edges(self.index[0], self.index[1], self.nodes, weights=weight)
        found: CSR = self.derived["graph"]
        return found

    def repeated(self) -> bool:
        """Whether an edge is there several times, which a CSR cannot tell from a weight."""
        return self.index is not None and self.graph().nnz != self.index.shape[1]


class EdgeCache:
    """Keeps what was derived from the last edges, while these tensors live and are not changed."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._edges: Edges | None = None

    def edges(self, where: str, edge_index: Any, weight: torch.Tensor | None, nodes: int) -> Edges:
        key = (*_identity(edge_index), *_identity(weight), nodes)
        if self._edges is None or not _same(key, self._key):
            self._edges, self._key = _checked(where, edge_index, weight, nodes), key
        if self._edges.index is not None:  # the tensors of this call: they may need a gradient
            self._edges.weight = weight
        return self._edges

    def __deepcopy__(self, memo: dict[int, Any]) -> EdgeCache:
        return EdgeCache()

    def __reduce__(self) -> tuple[type[EdgeCache], tuple[()]]:
        return EdgeCache, ()


def _identity(thing: Any) -> tuple[Any, ...]:
    if thing is None:
        return (None,)
    # Inference tensors keep no version; what is derived from them is not kept.
    version = None if not isinstance(thing, torch.Tensor) else object() if thing.is_inference() else thing._version
    return (weakref.ref(thing), version)


def _same(key: tuple[Any, ...], kept: tuple[Any, ...]) -> bool:
    if len(key) != len(kept):
        return False
    for now, before in zip(key, kept, strict=True):
        if isinstance(now, weakref.ref):
            if not isinstance(before, weakref.ref) or before() is not now():
                return False
        elif now != before:
            return False
    return True


def _checked(where: str, edge_index: Any, weight: torch.Tensor | None, nodes: int) -> Edges:
    if isinstance(edge_index, SparseMatrix):
        graph = as_csr(where, edge_index)
        if graph.shape != (nodes, nodes):
            raise ShapeError(
                f"{where}: the graph has shape {graph.shape} but x has {nodes} rows; pass ({nodes}, {nodes})."
            )
        if weight is not None:
            raise InvalidArgument(f"{where}: edge weights beside a graph; put them into the graph's values.")
        return Edges(nodes, given=graph)
    if not isinstance(edge_index, torch.Tensor):
        raise InvalidArgument(
            f"{where}: edge_index is a {type(edge_index).__name__}; pass a tensor (2, E) or a sparse matrix."
        )
    if edge_index.ndim != 2 or edge_index.shape[0] != 2:
        raise ShapeError(f"{where}: edge_index has shape {tuple(edge_index.shape)}, it must be (2, E); transpose it.")
    if edge_index.is_floating_point():
        raise DtypeError(f"{where}: edge_index has dtype {edge_index.dtype}, nodes are counted; pass int64.")
    if weight is not None and weight.shape != (edge_index.shape[1],):
        raise ShapeError(
            f"{where}: edge_weight has shape {tuple(weight.shape)} but there are {edge_index.shape[1]} edges; "
            "pass one each."
        )
    if edge_index.numel() and (int(edge_index.min()) < 0 or int(edge_index.max()) >= nodes):
        raise InvalidArgument(
            f"{where}: edge_index reaches from {int(edge_index.min())} to {int(edge_index.max())} "
            f"but x has {nodes} rows; nodes count from 0 to {nodes - 1}."
        )
    return Edges(nodes, edge_index, weight)
