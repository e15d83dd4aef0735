"""What the layers share."""

from __future__ import annotations

import math
from typing import Any

import torch

from ..._errors import InvalidArgument, ShapeError
from ._edges import EdgeCache, Edges

# Arguments of PyTorch Geometric's base class, and the only value of each that these layers have.
_FIXED = {"flow": "source_to_target", "node_dim": -2, "decomposed_layers": 1}
_IGNORED = ("aggr_kwargs",)


class GraphLayer(torch.nn.Module):
    """Chooses between the kernels and plain torch, and keeps the graph of the last call."""

    def __init__(self) -> None:
        super().__init__()
        self._cache = EdgeCache()

    def edges(self, x: torch.Tensor, edge_index: Any, weight: torch.Tensor | None = None) -> Edges:
        """The edges of this call, checked."""
        if not isinstance(x, torch.Tensor):
            raise InvalidArgument(
                f"{self.name}: x is a {type(x).__name__}, it must be a tensor (nodes, features); "
                "graphs between two kinds of nodes are not taken."
            )
        if x.ndim != 2:
            raise ShapeError(f"{self.name}: x has shape {tuple(x.shape)}, it must be (nodes, features); reshape it.")
        return self._cache.edges(self.name, edge_index, weight, x.shape[0])

    @property
    def name(self) -> str:
        return type(self).__name__

    def on_kernels(self, *tensors: torch.Tensor | None) -> bool:
        """Whether no gradient is asked for and everything lies on the CPU."""
        every = [t for t in (*tensors, *self.parameters()) if t is not None]
        if any(t.device.type != "cpu" for t in every):
            return False
        return not (torch.is_grad_enabled() and any(t.requires_grad for t in every))


def refuse(layer: str, arguments: dict[str, Any]) -> None:
    """Refuse what these layers do not have, by name."""
    for name, value in arguments.items():
        if name in _FIXED and value == _FIXED[name]:
            continue
        only = f"it can only be {_FIXED[name]!r}" if name in _FIXED else "the layer does not have it"
        raise InvalidArgument(f"{layer}: {name} is {value!r}, {only}; leave it out.")


def refuse_given(layer: str, **arguments: Any) -> None:
    """Refuse arguments of a call that these layers do not have, unless they are None."""
    refuse(layer, {name: value for name, value in arguments.items() if value is not None})


def check_aggregation(layer: str, aggr: Any, known: tuple[str, ...]) -> str:
    """The name of the reduction."""
    name = "sum" if aggr == "add" else aggr
    if name not in known:
        raise InvalidArgument(f"{layer}: aggr is {aggr!r}, not known; choose one of: {', '.join(known)}.")
    return str(name)


def scatter(messages: torch.Tensor, targets: torch.Tensor, nodes: int, reduce: str) -> torch.Tensor:
    """Rows of `messages` reduced by target, in plain torch, with a gradient; zeros where there are none."""
    out = messages.new_zeros((nodes, *messages.shape[1:]))
    if reduce == "sum":
        return out.index_add(0, targets, messages)
    at = targets.reshape(-1, *[1] * (messages.ndim - 1)).expand_as(messages)
    return out.scatter_reduce(
        0, at, messages, {"mean": "mean", "max": "amax", "min": "amin"}[reduce], include_self=False
    )


def edge_softmax(scores: torch.Tensor, targets: torch.Tensor, nodes: int) -> torch.Tensor:
    """Softmax of scores (E, H) over the edges of each target, in plain torch."""
    most = scatter(scores.detach(), targets, nodes, "max")
    found = (scores - most[targets]).exp()
    return found / scatter(found, targets, nodes, "sum")[targets]


def glorot(tensor: torch.Tensor) -> torch.nn.Parameter:
    """Uniform, by the sizes of the last two dimensions."""
    bound = math.sqrt(6.0 / (tensor.shape[-2] + tensor.shape[-1]))
    return torch.nn.Parameter(tensor.uniform_(-bound, bound))


def linear(inputs: int, outputs: int, *, bias: bool, wide: bool = False) -> torch.nn.Linear:
    """A Linear; `wide`: initialised by both sizes."""
    if isinstance(inputs, tuple):
        raise InvalidArgument(
            f"in_channels is {inputs!r}; graphs between two kinds of nodes are not taken, pass one number."
        )
    if inputs < 1:
        raise InvalidArgument(f"in_channels is {inputs}; it must be known, pass a number of at least 1.")
    found = torch.nn.Linear(inputs, outputs, bias=bias)
    if wide:
        found.weight = glorot(torch.empty(outputs, inputs))
    return found
