"""GAT: attention over the neighbours with additive scores."""

from __future__ import annotations

from typing import Any

import torch

from ...formats import CSR
from ...ops import from_edges, gat
from ._base import GraphLayer, check_aggregation, edge_softmax, glorot, linear, refuse, refuse_given, scatter
from ._edges import Edges


class GATConv(GraphLayer):
    """sum of softmax(leaky_relu(a_dst W x_i + a_src W x_j)) W x_j.

    Arguments and parameters as `torch_geometric.nn.GATConv`.

    Args:
        in_channels: Features of x.
        out_channels: Features of each head.
        heads: Heads.
        concat: Heads beside each other; else their mean.
        negative_slope: Of leaky_relu.
        dropout: Of the weights, while training.
        add_self_loops: Replace loops by one for each node.
        bias: Whether to add one.
        residual: Whether to add x, through a linear layer where the sizes differ.
    Source: Velickovic et al., "Graph Attention Networks", ICLR 2018.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        dropout: float = 0.0,
        add_self_loops: bool = True,
        edge_dim: int | None = None,
        fill_value: Any = "mean",
        bias: bool = True,
        residual: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        if edge_dim is not None:
            refuse("GATConv", {"edge_dim": edge_dim})
        if fill_value != "mean":
            refuse("GATConv", {"fill_value": fill_value})
        check_aggregation("GATConv", kwargs.pop("aggr", "add"), ("sum",))
        refuse("GATConv", kwargs)
        self.in_channels, self.out_channels, self.heads, self.concat = in_channels, out_channels, heads, concat
        self.negative_slope, self.dropout, self.add_self_loops = negative_slope, dropout, add_self_loops
        self.residual = residual
        self.lin = linear(in_channels, heads * out_channels, bias=False, wide=True)
        self.att_src = glorot(torch.empty(1, heads, out_channels))
        self.att_dst = glorot(torch.empty(1, heads, out_channels))
        width = heads * out_channels if concat else out_channels
        self.res = linear(in_channels, width, bias=False, wide=True) if residual else None
        self.bias = torch.nn.Parameter(torch.zeros(width)) if bias else None

    def forward(
        self,
        x: torch.Tensor,
        edge_index: Any,
        edge_attr: None = None,
        size: None = None,
        return_attention_weights: None = None,
    ) -> torch.Tensor:
        """x (nodes, in_channels); edge_index (2, E), or a graph (nodes, nodes), whose values are not looked at.

        The other arguments are there for models that pass None.
        """
        refuse_given("GATConv", edge_attr=edge_attr, size=size, return_attention_weights=return_attention_weights)
        edges = self.edges(x, edge_index)
        nodes = x.shape[0]
        features = self.lin(x).view(nodes, self.heads, self.out_channels)
        left, right = (features * self.att_dst).sum(-1), (features * self.att_src).sum(-1)
        random = self.training and self.dropout > 0
        if self.on_kernels(x) and not random and not self._repeated(edges):
            out = gat(self._looped(edges), features, left, right, negative_slope=self.negative_slope)
        else:
            sources, targets = self._looped_tensors(edges)
            scores = torch.nn.functional.leaky_relu(left[targets] + right[sources], self.negative_slope)
            weights = edge_softmax(scores, targets, nodes)
            weights = torch.nn.functional.dropout(weights, self.dropout, self.training)
            out = scatter(features[sources] * weights[:, :, None], targets, nodes, "sum")
        out = out.flatten(1) if self.concat else out.mean(1)
        if self.res is not None:
            out = out + self.res(x)
        result: torch.Tensor = out if self.bias is None else out + self.bias
        return result

    def _looped_tensors(self, edges: Edges) -> tuple[torch.Tensor, torch.Tensor]:
        sources, targets, _ = edges.tensors()
        if not self.add_self_loops:
            return sources, targets
        kept, nodes = sources != targets, torch.arange(edges.nodes)
        return torch.cat([sources[kept], nodes]), torch.cat([targets[kept], nodes])

    def _looped(self, edges: Edges) -> CSR:
        if not self.add_self_loops:
            return edges.graph()
        if "looped" not in edges.derived:
            sources, targets = self._looped_tensors(edges)
            edges.derived["looped"] = from_edges(sources, targets, edges.nodes)
        found: CSR = edges.derived["looped"]
        return found

    def _repeated(self, edges: Edges) -> bool:
        """Whether an edge is there several times, each with a share of the softmax; loops are made one."""
        if not self.add_self_loops:
            return edges.repeated()
        return bool((self._looped(edges).data != 1).any())
