"""Collects buffers, steps, tensors and weight matrices while a family's file walks a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import UnsupportedModel
from ..graph import Graph

Float32 = npt.NDArray[np.float32]

# Names of Hugging Face's activations; what is not here is refused.
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}


@dataclass(frozen=True)
class Lowered:
    """A model as a graph.

    Args:
        graph: The steps.
        tensors: Dense arrays by name.
        linears: Weight matrices (out, in) by the names of their modules, float32.
        kind: encoder or decoder.
    """

    graph: Graph
    tensors: Mapping[str, Float32]
    linears: Mapping[str, Float32]
    kind: str


class Builder:
    """A graph in the making.

    Args:
        model: The whole model; names of tensors and weight matrices are its own.
        where: Begins every error message.
        kind: encoder or decoder.
    """

    def __init__(self, model: Any, *, where: str, kind: str) -> None:
        self.model = model
        self.where = where
        self.kind = kind
        self.max_positions = 0
        self._names = {id(module): name for name, module in model.named_modules()}
        self._parameters = {id(value): name for name, value in [*model.named_parameters(), *model.named_buffers()]}
        self._inputs: dict[str, None] = {}
        self._buffers: dict[str, int] = {}
        self._views: dict[str, tuple[str, int, int]] = {}
        self._steps: list[dict[str, Any]] = []
        self._outputs: list[str] = []
        self._tensors: dict[str, Float32] = {}
        self._linears: dict[str, Float32] = {}
        self._caches = 0

    def refuse(self, what: str) -> UnsupportedModel:
        """The error for a setting that the graph has no step for."""
        return UnsupportedModel(f"{self.where}: {what} is not supported; run this model on torch.")

    def buffer(self, name: str, features: int) -> str:
        """A buffer of this name, made at its first mention."""
        if self._buffers.setdefault(name, features) != features:
            raise self.refuse(f"a layer of other sizes than the first ({name}: {features})")
        return name

    def view(self, name: str, buffer: str, first: int, features: int) -> str:
        """Some features of a buffer, by a name of their own."""
        self._views[name] = (buffer, first, features)
        return name

    def activation(self, name: Any) -> str:
        """The graph's name of a configured activation."""
        if name not in ACTIVATIONS:
            raise self.refuse(f"activation {name!r}")
        return ACTIVATIONS[name]

    def tensor(self, value: Any, name: str | None = None) -> str:
        """A parameter (or array) as a named tensor."""
        found = self._parameters.get(id(value)) if name is None else name
        assert found is not None, "a tensor is a parameter of the model, or has a name"
        self._tensors[found] = array_of(value)
        return found

    def embed(self, out: str, module: Any, source: str, *, add: bool = False, offset: int = 0) -> None:
        """A row of an embedding table; `source` is ids, positions or types."""
        self._inputs[source] = None
        self.buffer(out, module.weight.shape[1])
        step = {"op": "embed", "out": out, "table": self.tensor(module.weight), "input": source}
        self._steps.append(step | ({"add": True} if add else {}) | ({"offset": offset} if offset else {}))

    def norm(self, out: str, source: str, module: Any, *, rms: bool = False, groups: int = 1) -> None:
        """LayerNorm, or RMSNorm; with `groups` each of so many runs of features by itself."""
        size = self._features(source)
        self.buffer(out, size) if out not in self._views else None
        name = self._names[id(module)]
        weight = module.weight
        step = {
            "op": "rmsnorm" if rms else "layernorm",
            "in": source,
            "out": out,
            "weight": self.tensor(np.ones(size // groups, np.float32), f"{name}.ones")
            if weight is None
            else self.tensor(weight),
            "eps": float(module.variance_epsilon if rms else module.eps),
        }
        if getattr(module, "bias", None) is not None:
            step["bias"] = self.tensor(module.bias)
        self._steps.append(step | ({"groups": groups} if groups > 1 else {}))

    def linear(
        self,
        out: str,
        source: str,
        module: Any,
        *,
        activation: str = "none",
        residual: str | None = None,
        transposed: bool = False,
    ) -> None:
        """act(W x + b) + residual. `transposed`: the module holds (in, out)."""
        name = self._names[id(module)]
        weight = getattr(module, "weight", None)
        if weight is None or weight.ndim != 2:
            raise self.refuse(f"{name} of class {type(module).__name__} without a weight matrix")
        if name not in self._linears:
            matrix = array_of(weight)
            self._linears[name] = np.ascontiguousarray(matrix.T) if transposed else matrix
        self.buffer(out, self._linears[name].shape[0])
        step: dict[str, Any] = {"op": "linear", "in": source, "out": out, "linear": name}
        if module.bias is not None:
            step["bias"] = self.tensor(module.bias)
        if activation != "none":
            step["activation"] = activation
        if residual is not None:
            step["residual"] = residual
        self._steps.append(step)

    def attention(
        self,
        out: str,
        q: str,
        k: str,
        v: str,
        *,
        heads: int,
        kv_heads: int,
        head_dim: int,
        scale: float,
        bias: str | None = None,
    ) -> None:
        """Attention within each sequence: causal and with a cache in a decoder, over everything in an encoder."""
        self.buffer(out, heads * head_dim)
        step: dict[str, Any] = {"op": "attention", "q": q, "k": k, "v": v, "out": out, "heads": heads}
        step |= {"kv_heads": kv_heads, "head_dim": head_dim, "scale": float(scale)}
        if self.kind == "decoder":
            step |= {"causal": True, "cache": self._caches}
            self._caches += 1
        if bias is not None:
            step["bias"] = bias
        self._steps.append(step)

    def rope(self, source: str, *, heads: int, head_dim: int, freqs: str, scale: float) -> None:
        """Rotary positions, in place."""
        step = {"op": "rope", "in": source, "heads": heads, "head_dim": head_dim, "freqs": freqs}
        self._steps.append(step | ({"scale": scale} if scale != 1 else {}))

    def glu(self, out: str, gate: str, up: str, activation: str) -> None:
        """act(gate) * up."""
        self._steps.append({"op": "glu", "gate": gate, "up": up, "out": out, "activation": activation})

    def output(self, name: str) -> None:
        """Offers a buffer as an output."""
        self._outputs.append(name)

    def head(self, source: str, norm: Any, *, rms: bool = False) -> None:
        """The end of a decoder: final norm, and the language head where there is one, for all tokens or the last.

        Args:
            source: What the last block left.
            norm: The final norm, or None.
            rms: Whether it is an RMSNorm.
        """
        head = getattr(self.model, "lm_head", None)
        self._tail(source, "hidden", norm, rms)
        self.output("hidden")
        if head is None:
            return
        self.linear("logits", "hidden", head)
        self.buffer("last", self._features(source))
        self._steps.append({"op": "last", "in": source, "out": "last"})
        self._tail("last", "last_hidden", norm, rms)
        self.linear("last_logits", "last_hidden", head)
        self._outputs[:0] = ["logits", "last_logits"]

    def finish(self) -> Lowered:
        """The graph, checked against its tensors."""
        graph = Graph(
            inputs=tuple(self._inputs),
            buffers=self._buffers,
            steps=tuple(self._steps),
            outputs=tuple(self._outputs),
            views=self._views,
            max_positions=self.max_positions,
        )
        graph.check_tensors({name: tuple(array.shape) for name, array in self._tensors.items()})
        return Lowered(graph, self._tensors, self._linears, self.kind)

    def _tail(self, source: str, out: str, norm: Any, rms: bool) -> None:
        if norm is not None:
            self.norm(out, source, norm, rms=rms)
        else:
            self.buffer(out, self._features(source))
            self._steps.append({"op": "activation", "in": source, "out": out, "activation": "none"})

    def _features(self, name: str) -> int:
        return self._views[name][2] if name in self._views else self._buffers[name]


def array_of(value: Any) -> Float32:
    """A tensor as float32 NumPy; no copy where it is that already."""
    if isinstance(value, np.ndarray):
        return value.astype(np.float32, copy=False)
    found: Float32 = value.detach().cpu().float().numpy()
    return found
