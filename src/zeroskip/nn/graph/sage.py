"""GraphSAGE: the neighbours, reduced, and the node itself, each through a linear layer."""

from __future__ import annotations

from typing import Any

import torch

from ...ops import gspmm
from ._base import GraphLayer, check_aggregation, linear, refuse, refuse_given, scatter


class SAGEConv(GraphLayer):
    """W_l reduce(x_j) + b + W_r x_i; arguments and parameters as `torch_geometric.nn.SAGEConv`.

    Args:
        in_channels: Features of x.
        out_channels: Features of the result.
        aggr: mean, sum (add), max or min.
        normalize: Whether to divide each row of the result by its Euclidean norm.
        root_weight: Whether the node itself takes part.
        project: Whether x goes through a linear layer and relu before it is reduced.
        bias: Whether to add one.
    Source: Hamilton et al., "Inductive Representation Learning on Large Graphs", NeurIPS 2017.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        aggr: str | None = "mean",
        normalize: bool = False,
        root_weight: bool = True,
        project: bool = False,
        bias: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        refuse("SAGEConv", kwargs)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.reduce = check_aggregation("SAGEConv", aggr, ("mean", "sum", "max", "min"))
        self.normalize, self.root_weight, self.project = normalize, root_weight, project
        if project:
            self.lin = linear(in_channels, in_channels, bias=True)
        self.lin_l = linear(in_channels, out_channels, bias=bias)
        if root_weight:
            self.lin_r = linear(in_channels, out_channels, bias=False)

    def forward(self, x: torch.Tensor, edge_index: Any, size: None = None) -> torch.Tensor:
        """x (nodes, in_channels); edge_index (2, E), or a graph (nodes, nodes), whose values are not looked at."""
        refuse_given("SAGEConv", size=size)
        edges = self.edges(x, edge_index)
        neighbours = self.lin(x).relu() if self.project else x
        if self.on_kernels(x) and not edges.repeated():
            out = gspmm(edges.graph(), neighbours, reduce=self.reduce)
        else:
            sources, targets, _ = edges.tensors()
            out = scatter(neighbours[sources], targets, x.shape[0], self.reduce)
        out = self.lin_l(out)
        if self.root_weight:
            out = out + self.lin_r(x)
        return torch.nn.functional.normalize(out, dim=-1) if self.normalize else out
