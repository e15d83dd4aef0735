"""R-GCN: the neighbours of each relation, reduced, through a matrix of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..._errors import InvalidArgument, ShapeError
from ...formats import CSR, SparseMatrix
from ...ops import from_edges, relation_spmm
from ...ops.gspmm import as_csr
from ._base import GraphLayer, check_aggregation, glorot, refuse, scatter


class RGCNConv(GraphLayer):
    """x_i root + sum over relations of reduce(x_j) W_r + b; arguments and parameters as `torch_geometric.nn.RGCNConv`.

    Args:
        in_channels: Features of x.
        out_channels: Features of the result.
        num_relations: Relations.
        num_bases: Each W_r is a sum of so many matrices, by `comp`; None: they are free.
        aggr: mean or sum (add), in each relation by itself.
        root_weight: Whether the node itself takes part.
        bias: Whether to add one.
    Source: Schlichtkrull et al., "Modeling Relational Data with Graph Convolutional Networks", ESWC 2018.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_relations: int,
        num_bases: int | None = None,
        num_blocks: int | None = None,
        aggr: str = "mean",
        root_weight: bool = True,
        is_sorted: bool = False,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if num_blocks is not None:
            refuse("RGCNConv", {"num_blocks": num_blocks})
        if isinstance(in_channels, tuple):
            refuse("RGCNConv", {"in_channels": in_channels})
        refuse("RGCNConv", kwargs)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_relations, self.num_bases = num_relations, num_bases
        self.reduce = check_aggregation("RGCNConv", aggr, ("mean", "sum"))
        self.is_sorted = is_sorted
        self.weight = glorot(torch.empty(num_bases or num_relations, in_channels, out_channels))
        self.comp = glorot(torch.empty(num_relations, num_bases)) if num_bases else None
        self.root = glorot(torch.empty(in_channels, out_channels)) if root_weight else None
        self.bias = torch.nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(
        self, x: torch.Tensor, edge_index: torch.Tensor | Sequence[SparseMatrix], edge_type: torch.Tensor | None = None
    ) -> torch.Tensor:
        """x (nodes, in_channels); edge_index (2, E) and edge_type (E,), or one graph (nodes, nodes) a relation."""
        relations = self._relations(x, edge_index, edge_type)
        weight: torch.Tensor = self.weight
        if self.comp is not None:
            weight = (self.comp @ weight.flatten(1)).view(self.num_relations, *weight.shape[1:])
        graphs = self._graphs(relations, x.shape[0]) if self.on_kernels(x) else None
        if graphs is not None:
            out = torch.from_numpy(relation_spmm(graphs, x, weight, reduce=self.reduce)).to(x.dtype)
        else:
            out = x.new_zeros((x.shape[0], self.out_channels))
            for relation, matrix in zip(relations, weight, strict=True):
                sources, targets = _tensors(relation)
                out = out + scatter(x[sources], targets, x.shape[0], self.reduce) @ matrix
        if self.root is not None:
            out = out + x @ self.root
        return out if self.bias is None else out + self.bias

    def _relations(self, x: torch.Tensor, edge_index: Any, edge_type: torch.Tensor | None) -> list[Any]:
        """One (2, E_r) tensor or graph for each relation."""
        if not isinstance(edge_index, torch.Tensor):
            graphs = [self.edges(x, graph).graph() for graph in edge_index]
            if len(graphs) != self.num_relations or edge_type is not None:
                raise InvalidArgument(
                    f"RGCNConv: {len(graphs)} graphs for {self.num_relations} relations; "
                    "pass one each, and no edge_type."
                )
            return graphs
        self.edges(x, edge_index)
        if edge_type is None or edge_type.shape != (edge_index.shape[1],):
            found = None if edge_type is None else tuple(edge_type.shape)
            raise ShapeError(
                f"RGCNConv: edge_type has shape {found}; pass one for each of {edge_index.shape[1]} edges."
            )
        if edge_type.numel() and (int(edge_type.min()) < 0 or int(edge_type.max()) >= self.num_relations):
            raise InvalidArgument(
                f"RGCNConv: edge_type reaches from {int(edge_type.min())} to {int(edge_type.max())}, "
                f"relations count from 0 to {self.num_relations - 1}."
            )
        return [edge_index[:, edge_type == r] for r in range(self.num_relations)]

    def _graphs(self, relations: list[Any], nodes: int) -> list[CSR] | None:
        """None where an edge is there several times in a relation."""
        graphs = []
        for relation in relations:
            if isinstance(relation, SparseMatrix):
                graphs.append(as_csr("RGCNConv", relation))
                continue
            graph = from_edges(relation[0], relation[1], nodes)
            if graph.nnz != relation.shape[1]:
                return None
            graphs.append(graph)
        return graphs


def _tensors(relation: Any) -> tuple[torch.Tensor, torch.Tensor]:
    if isinstance(relation, torch.Tensor):
        return relation[0], relation[1]
    rows, cols = relation.places()
    return torch.from_numpy(cols), torch.from_numpy(rows)
