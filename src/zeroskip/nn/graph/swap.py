"""PyTorch Geometric's models on our kernels: their layers are replaced by ours, which share the parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from ..._errors import InvalidArgument
from ._base import GraphLayer
from .gat import GATConv
from .gcn import GCNConv
from .gin import GINConv
from .rgcn import RGCNConv
from .sage import SAGEConv


@dataclass(frozen=True)
class Swapped:
    """What `swap` did.

    Attributes:
        model: The model; another object only where it was a single layer.
        replaced: Names of the layers that are ours now.
        kept: Names of known layers that stay as they are, and why.
    """

    model: torch.nn.Module
    replaced: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)


def swap(model: torch.nn.Module) -> Swapped:
    """Replace the GCN, GraphSAGE, GIN, R-GCN and GAT layers of PyTorch Geometric in a model by ours, in place.

    Parameters are shared, so that what trains the one trains the other, and a state dict of the model loads as before.
    A layer with settings that ours does not have stays as it is, and is named in the result with the reason.
    """
    result = Swapped(model)
    made = _convert(model)
    if isinstance(made, GraphLayer):
        return Swapped(made, [""])
    if isinstance(made, str):
        result.kept[""] = made
        return result
    for parent_name, parent in list(model.named_modules()):
        for name, child in list(parent.named_children()):
            full = f"{parent_name}.{name}" if parent_name else name
            made = _convert(child)
            if isinstance(made, GraphLayer):
                parent._modules[name] = made
                result.replaced.append(full)
            elif isinstance(made, str):
                result.kept[full] = made
    return result


def _convert(module: torch.nn.Module) -> GraphLayer | str | None:
    """Our layer; the reason why there is none; None where it is no layer of PyTorch Geometric that we know."""
    if not type(module).__module__.startswith("torch_geometric.nn.conv") or type(module).__name__ not in _MAKERS:
        return None
    found: Any = module
    if getattr(found, "flow", "source_to_target") != "source_to_target":
        return f"flow is {found.flow!r}, ours is source_to_target"
    try:
        made = _MAKERS[type(module).__name__](found)
    except InvalidArgument as error:
        return str(error)
    wanted, has = dict(found.named_parameters()), dict(made.named_parameters())
    if {n: p.shape for n, p in wanted.items()} != {n: p.shape for n, p in has.items()}:
        return f"its parameters are {sorted(wanted)}, ours are {sorted(has)}"
    for name, parameter in wanted.items():
        parent, _, own = name.rpartition(".")
        setattr(made.get_submodule(parent), own, parameter)
    made.train(module.training)
    return made


def _gcn(m: Any) -> GraphLayer:
    return GCNConv(
        m.in_channels,
        m.out_channels,
        improved=m.improved,
        cached=m.cached,
        add_self_loops=m.add_self_loops,
        normalize=m.normalize,
        bias=m.bias is not None,
        aggr=m.aggr,
    )


def _sage(m: Any) -> GraphLayer:
    return SAGEConv(
        m.in_channels,
        m.out_channels,
        aggr=m.aggr,
        normalize=m.normalize,
        root_weight=m.root_weight,
        project=m.project,
        bias=m.lin_l.bias is not None,
    )


def _gin(m: Any) -> GraphLayer:
    made = GINConv(m.nn, eps=float(m.eps), train_eps=isinstance(m.eps, torch.nn.Parameter), aggr=m.aggr)
    return made


def _rgcn(m: Any) -> GraphLayer:
    return RGCNConv(
        m.in_channels,
        m.out_channels,
        m.num_relations,
        num_bases=m.num_bases,
        num_blocks=m.num_blocks,
        aggr=m.aggr,
        root_weight=m.root is not None,
        bias=m.bias is not None,
    )


def _gat(m: Any) -> GraphLayer:
    return GATConv(
        m.in_channels,
        m.out_channels,
        heads=m.heads,
        concat=m.concat,
        negative_slope=m.negative_slope,
        dropout=m.dropout,
        add_self_loops=m.add_self_loops,
        edge_dim=m.edge_dim,
        fill_value=m.fill_value,
        bias=m.bias is not None,
        residual=bool(getattr(m, "residual", False)),
        aggr=m.aggr,
    )


_MAKERS: dict[str, Callable[[Any], GraphLayer]] = {
    "GCNConv": _gcn,
    "SAGEConv": _sage,
    "GINConv": _gin,
    "RGCNConv": _rgcn,
    "GATConv": _gat,
}
