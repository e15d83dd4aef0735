"""GCN: a linear layer, then the normalised adjacency."""

from __future__ import annotations

from typing import Any

import torch

from ...formats import CSR
from ...ops import gspmm, normalised_adjacency
from ...ops.graphs import with_self_loops
from ._base import GraphLayer, check_aggregation, linear, refuse, scatter
from ._edges import Edges


class GCNConv(GraphLayer):
    """D^-1/2 (A + I) D^-1/2 x W + b; arguments and parameters as `torch_geometric.nn.GCNConv`.

    Args:
        in_channels: Features of x.
        out_channels: Features of the result.
        improved: Loops of 2 instead of 1.
        cached: Keep the normalised graph of the first call for all others.
        add_self_loops: Add a loop where a node has none; by default where `normalize` is set.
        normalize: Whether to normalise.
        bias: Whether to add one.
    Source: Kipf and Welling, "Semi-Supervised Classification with Graph Convolutional Networks", ICLR 2017.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        improved: bool = False,
        cached: bool = False,
        add_self_loops: bool | None = None,
        normalize: bool = True,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        check_aggregation("GCNConv", kwargs.pop("aggr", "add"), ("sum",))
        refuse("GCNConv", kwargs)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.improved, self.cached, self.normalize = improved, cached, normalize
        self.add_self_loops = normalize if add_self_loops is None else add_self_loops
        self.lin = linear(in_channels, out_channels, bias=False, wide=True)
        self.bias = torch.nn.Parameter(torch.zeros(out_channels)) if bias else None
        self._kept: Edges | None = None

    def forward(self, x: torch.Tensor, edge_index: Any, edge_weight: torch.Tensor | None = None) -> torch.Tensor:
        """x (nodes, in_channels); edge_index (2, E), or a graph (nodes, nodes) with its values as weights."""
        edges = self._kept or self.edges(x, edge_index, edge_weight)
        if self.cached:
            self._kept = edges
        if self.on_kernels(x, edges.weight):
            out = gspmm(self._normalised(edges), self.lin(x), weights="values")
        else:
            sources, targets, weights = self._weighted(edges, x)
            out = scatter(self.lin(x)[sources] * weights[:, None], targets, x.shape[0], "sum")
        result: torch.Tensor = out if self.bias is None else out + self.bias
        return result

    def _normalised(self, edges: Edges) -> CSR:
        key = ("gcn", self.normalize, self.add_self_loops, self.improved)
        if key not in edges.derived:
            graph = edges.graph()
            if self.normalize:
                if self.add_self_loops:
                    graph = with_self_loops(graph, 2.0 if self.improved else 1.0)
                graph = normalised_adjacency(graph, self_loops=False)
            edges.derived[key] = graph
        found: CSR = edges.derived[key]
        return found

    def _weighted(self, edges: Edges, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        sources, targets, weights = edges.tensors()
        weights = x.new_ones(sources.shape[0]) if weights is None else weights.to(x.dtype)
        if not self.normalize:
            return sources, targets, weights
        if self.add_self_loops:
            alone = torch.ones(x.shape[0], dtype=torch.bool)
            alone[sources[sources == targets]] = False
            loops = alone.nonzero().flatten()
            sources, targets = torch.cat([sources, loops]), torch.cat([targets, loops])
            weights = torch.cat([weights, weights.new_full((loops.shape[0],), 2.0 if self.improved else 1.0)])
        degrees = scatter(weights, targets, x.shape[0], "sum")
        scale = torch.where(degrees > 0, degrees, torch.ones_like(degrees)).rsqrt() * (degrees > 0)
        return sources, targets, scale[sources] * weights * scale[targets]
