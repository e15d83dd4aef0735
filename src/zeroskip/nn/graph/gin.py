"""GIN: the sum over the neighbours and the node itself, through a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ...ops import gspmm
from ._base import GraphLayer, check_aggregation, refuse, refuse_given, scatter


class GINConv(GraphLayer):
    """nn((1 + eps) x_i + sum of x_j); arguments and parameters as `torch_geometric.nn.GINConv`.

    Args:
        nn: The network.
        eps: Its first value.
        train_eps: Whether it is trained.
    Source: Xu et al., "How Powerful are Graph Neural Networks?", ICLR 2019.
    """

    def __init__(
        self, nn: Callable[[torch.Tensor], torch.Tensor], eps: float = 0.0, train_eps: bool = False, **kwargs: Any
    ) -> None:
        super().__init__()
        check_aggregation("GINConv", kwargs.pop("aggr", "add"), ("sum",))
        refuse("GINConv", kwargs)
        self.nn = nn
        self.initial_eps = eps
        self.eps: torch.Tensor
        if train_eps:
            self.eps = torch.nn.Parameter(torch.full((1,), float(eps)))
        else:
            self.register_buffer("eps", torch.full((1,), float(eps)))

    def forward(self, x: torch.Tensor, edge_index: Any, size: None = None) -> torch.Tensor:
        """x (nodes, features); edge_index (2, E), or a graph (nodes, nodes), whose values are not looked at."""
        refuse_given("GINConv", size=size)
        edges = self.edges(x, edge_index)
        if self.on_kernels(x) and not edges.repeated():
            out = gspmm(edges.graph(), x)
        else:
            sources, targets, _ = edges.tensors()
            out = scatter(x[sources], targets, x.shape[0], "sum")
        return self.nn(out + (1 + self.eps) * x)
