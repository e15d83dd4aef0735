"""The graph: what a lowered model computes, as steps over named buffers. JSON-able, and not trusted before validation.

`docs/graph.md` defines every step. Nothing here runs anything: `program.Program` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from .._errors import DamagedFile, FormatError, InvalidArgument

ACTIVATIONS = ("none", "relu", "gelu", "gelu_tanh", "silu", "tanh")
INPUTS = ("ids", "positions", "types")
POOLINGS = ("mean", "max", "first", "last")

MAX_FEATURES = 1 << 24
MAX_COUNT = 1 << 16  # steps, buffers, views
MAX_INT = (1 << 31) - 1

Step = Mapping[str, Any]
View = tuple[str, int, int]


@dataclass(frozen=True)
class Kind:
    """What a field of a step may hold."""

    what: str  # in, out, tensor, linear, int, float, bool, or choice
    least: int = 0
    most: int = MAX_INT
    names: tuple[str, ...] = ()
    required: bool = True


_IN, _OUT, _TENSOR, _LINEAR = Kind("in"), Kind("out"), Kind("tensor"), Kind("linear")
_FLAG = Kind("bool", required=False)
_COUNT = Kind("int", least=1, most=1 << 16)
_ACTIVATION = Kind("choice", names=ACTIVATIONS, required=False)
_SOME_TENSOR = replace(_TENSOR, required=False)
_NORM = {
    "in": _IN,
    "out": _OUT,
    "weight": _TENSOR,
    "bias": _SOME_TENSOR,
    "eps": Kind("float"),
    "groups": replace(_COUNT, required=False),
}

OPERATIONS: Mapping[str, Mapping[str, Kind]] = MappingProxyType(
    {
        "embed": {
            "out": _OUT,
            "table": _TENSOR,
            "input": Kind("choice", names=INPUTS),
            "add": _FLAG,
            "offset": Kind("int", required=False),
        },
        "layernorm": _NORM,
        "rmsnorm": _NORM,
        "linear": {
            "in": _IN,
            "out": _OUT,
            "linear": _LINEAR,
            "bias": _SOME_TENSOR,
            "activation": _ACTIVATION,
            "residual": replace(_IN, required=False),
        },
        "rope": {
            "in": _IN,
            "heads": _COUNT,
            "head_dim": _COUNT,
            "freqs": _TENSOR,
            "scale": Kind("float", required=False),
        },
        "attention": {
            "q": _IN,
            "k": _IN,
            "v": _IN,
            "out": _OUT,
            "heads": _COUNT,
            "kv_heads": _COUNT,
            "head_dim": _COUNT,
            "scale": Kind("float"),
            "causal": _FLAG,
            "cache": Kind("int", required=False),
            "bias": _SOME_TENSOR,
        },
        "glu": {"gate": _IN, "up": _IN, "out": _OUT, "activation": _ACTIVATION},
        "add": {"a": _IN, "b": _IN, "out": _OUT},
        "activation": {"in": _IN, "out": _OUT, "activation": Kind("choice", names=ACTIVATIONS)},
        "last": {"in": _IN, "out": _OUT},
        "pool": {"in": _IN, "out": _OUT, "mode": Kind("choice", names=POOLINGS), "normalize": _FLAG},
    }
)


@dataclass(frozen=True)
class Graph:
    """Steps over named buffers of lane panels.

    Args:
        inputs: What `run` is given, of `ids`, `positions`, `types`.
        buffers: Features of each buffer.
        steps: Each a mapping with `op` and the fields of that operation; see `docs/graph.md`.
        outputs: Buffers that may be asked for.
        views: Names for some features of a buffer: (buffer, first feature, features). Usable wherever a buffer is,
            but by `linear`.
        max_positions: Most tokens of a sequence; 0 for no limit.
    Raises:
        FormatError: If anything does not fit; names the step.
    """

    inputs: tuple[str, ...]
    buffers: Mapping[str, int]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    views: Mapping[str, View] = field(default_factory=dict)
    max_positions: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "buffers", MappingProxyType(dict(self.buffers)))
        object.__setattr__(self, "views", MappingProxyType(dict(self.views)))
        object.__setattr__(self, "steps", tuple(MappingProxyType(dict(step)) for step in self.steps))
        self._check_buffers()
        for index, step in enumerate(self.steps):
            _check_step(f"graph: steps[{index}]", step, self)
        for name in self.outputs:
            _require(name in self.buffers, "graph", f"outputs names {name!r}, it must be one of buffers")
        _require(bool(self.outputs) and bool(self.steps), "graph", "has no outputs or no steps")
        for name in self.inputs:
            _require(name in INPUTS, "graph", f"inputs names {name!r}, it must be one of {', '.join(INPUTS)}")

    def _check_buffers(self) -> None:
        for what, count in (("buffers", self.buffers), ("views", self.views), ("steps", self.steps)):
            _require(len(count) <= MAX_COUNT, "graph", f"{what} has {len(count)} entries, at most {MAX_COUNT} are read")
        _require(_is_int(self.max_positions, 0, MAX_INT), "graph", f"max_positions is {self.max_positions!r}")
        for name, features in self.buffers.items():
            good = _is_int(features, 1, MAX_FEATURES)
            _require(good, "graph", f"buffers[{name!r}] is {features!r}, it must lie in [1, {MAX_FEATURES}]")
        for name, view in self.views.items():
            where = f"graph: views[{name!r}]"
            _require(name not in self.buffers, where, "has the name of a buffer")
            _require(isinstance(view, tuple) and len(view) == 3, where, "must be (buffer, first, features)")
            buffer, first, features = view
            known = isinstance(buffer, str) and buffer in self.buffers
            _require(known, where, f"names {buffer!r}, it must be a buffer")
            fits = _is_int(first, 0, MAX_INT) and _is_int(features, 1, MAX_INT)
            _require(fits and first + features <= self.buffers[buffer], where, f"leaves {buffer!r}")

    def features(self, name: str) -> int:
        """Features of a buffer or view."""
        return self.views[name][2] if name in self.views else self.buffers[name]

    def tensor_names(self) -> tuple[str, ...]:
        """The dense tensors that the steps name, each once."""
        return tuple(dict.fromkeys(name for _, name in self._named("tensor")))

    def linear_names(self) -> tuple[str, ...]:
        """The weight matrices that the steps name, each once."""
        return tuple(dict.fromkeys(name for _, name in self._named("linear")))

    def linear_shapes(self) -> dict[str, tuple[int, int]]:
        """(out, in) of each weight matrix."""
        found: dict[str, tuple[int, int]] = {}
        for step in self.steps:
            if step["op"] == "linear":
                found[step["linear"]] = (self.features(step["out"]), self.features(step["in"]))
        return found

    def check_tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Whether the tensors fit the steps.

        Raises:
            FormatError: Naming the step, the tensor and the shape it must have.
        """
        for index, step in enumerate(self.steps):
            where = f"graph: steps[{index}] ({step['op']})"
            for name, rule, good in _shape_rules(step, self, shapes):
                shape = shapes.get(name)
                _require(shape is not None, where, f"names tensor {name!r}, there is none")
                _require(good, where, f"tensor {name!r} has shape {shape}, it must be {rule}")

    def with_pooling(self, mode: str, *, normalize: bool = False, source: str = "hidden") -> Graph:
        """This graph with an output `embedding`: one vector a sequence.

        Args:
            mode: mean, max, first (the CLS token) or last.
            normalize: Whether vectors get length 1.
            source: The buffer of token vectors.
        """
        if mode not in POOLINGS:
            raise InvalidArgument(f"with_pooling: mode is {mode!r}, it must be one of {', '.join(POOLINGS)}.")
        if source not in self.outputs:
            raise InvalidArgument(f"with_pooling: {source!r} is no output of this graph, it has {self.outputs}.")
        step = {"op": "pool", "in": source, "out": "embedding", "mode": mode, "normalize": normalize}
        return replace(
            self,
            buffers={**self.buffers, "embedding": self.buffers[source]},
            steps=(*self.steps, step),
            outputs=(*self.outputs, "embedding"),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers; `from_json` reads them."""
        return {
            "inputs": list(self.inputs),
            "buffers": dict(self.buffers),
            "views": {name: list(view) for name, view in self.views.items()},
            "steps": [dict(step) for step in self.steps],
            "outputs": list(self.outputs),
            "max_positions": self.max_positions,
        }

    @classmethod
    def from_json(cls, data: Any) -> Graph:
        """What `to_json` wrote.

        Raises:
            DamagedFile: If it is not made of the right JSON types.
            FormatError: If it is, and says something that does not fit.
        """
        if not isinstance(data, Mapping):
            raise DamagedFile(f"graph: is {type(data).__name__}, it must be an object; save the model again.")
        unknown = set(data) - {"inputs", "buffers", "views", "steps", "outputs", "max_positions"}
        if unknown:
            raise DamagedFile(f"graph: has the unknown field {sorted(map(str, unknown))[0]!r}; save the model again.")
        views = {name: tuple(_of(view, list, f"views[{name!r}]")) for name, view in _objects(data, "views").items()}
        return cls(
            inputs=_strings(data, "inputs"),
            buffers=_objects(data, "buffers"),
            steps=tuple(_of(step, Mapping, "steps") for step in _of(data.get("steps"), list, "steps")),
            outputs=_strings(data, "outputs"),
            views=views,
            max_positions=data.get("max_positions", 0),
        )

    def _named(self, what: str) -> Iterator[tuple[int, str]]:
        for index, step in enumerate(self.steps):
            for name, kind in OPERATIONS[step["op"]].items():
                if kind.what == what and name in step:
                    yield index, step[name]


def _require(ok: bool, where: str, message: str) -> None:
    if not ok:
        raise FormatError(f"{where}: {message}; save the model again.")


def _is_int(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _of(value: Any, kind: Any, what: str) -> Any:
    if not isinstance(value, kind):
        raise DamagedFile(f"graph: {what} is {type(value).__name__}, not what it should be; save the model again.")
    return value


def _objects(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = _of(data.get(key, {}), Mapping, key)
    return {_of(name, str, key): value for name, value in found.items()}


def _strings(data: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_of(name, str, key) for name in _of(data.get(key), list, key))


def _check_step(where: str, step: Step, graph: Graph) -> None:
    op = step.get("op")
    known = isinstance(op, str) and op in OPERATIONS
    _require(known, where, f"op is {op!r}, it must be one of {', '.join(OPERATIONS)}")
    assert isinstance(op, str)
    where = f"{where} ({op})"
    fields = OPERATIONS[op]
    for name in step:
        _require(name == "op" or name in fields, where, f"has the unknown field {name!r}")
    for name, kind in fields.items():
        if name not in step:
            _require(not kind.required, where, f"lacks {name}")
            continue
        rule = _rule(kind, step[name], graph)
        _require(not rule, where, f"{name} is {step[name]!r}, it must be {rule}")
    for rule, good in _size_rules(op, step, graph):
        _require(good, where, rule)


def _rule(kind: Kind, value: Any, graph: Graph) -> str:
    """What the value must be, or nothing where it is."""
    if kind.what in ("in", "out"):
        known = isinstance(value, str) and (value in graph.buffers or value in graph.views)
        return "" if known else "a buffer or view"
    if kind.what in ("tensor", "linear"):
        return "" if isinstance(value, str) and value else "the name of a tensor"
    if kind.what == "int":
        return "" if _is_int(value, kind.least, kind.most) else f"a whole number in [{kind.least}, {kind.most}]"
    if kind.what == "float":
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value >= 0
        return "" if good and value < 1e30 else "a number that is not negative"
    if kind.what == "bool":
        return "" if isinstance(value, bool) else "true or false"
    return "" if value in kind.names else f"one of {', '.join(kind.names)}"


def _size_rules(op: str, step: Step, graph: Graph) -> Iterator[tuple[str, bool]]:
    """Rules on the features of a step's buffers, and whether they hold."""
    size = graph.features
    if op in ("layernorm", "rmsnorm", "activation", "last", "pool"):
        yield "in and out must have the same features", size(step["in"]) == size(step["out"])
    if op in ("layernorm", "rmsnorm"):
        yield "groups must divide the features", size(step["in"]) % step.get("groups", 1) == 0
    if op in ("glu", "add"):
        first, second = ("gate", "up") if op == "glu" else ("a", "b")
        same = size(step[first]) == size(step[second]) == size(step["out"])
        yield f"{first}, {second} and out must have the same features", same
    if op == "rope":
        yield "in must have heads * head_dim features", size(step["in"]) == step["heads"] * step["head_dim"]
    if op == "linear":
        names = [step[name] for name in ("in", "out", "residual") if name in step]
        yield "in, out and residual must be whole buffers", not any(name in graph.views for name in names)
        yield "out must differ from in and residual", step["out"] not in (step["in"], step.get("residual"))
        if "residual" in step:
            yield "residual and out must have the same features", size(step["residual"]) == size(step["out"])
    if op == "attention":
        heads, kv_heads, dim = step["heads"], step["kv_heads"], step["head_dim"]
        yield "heads must be a multiple of kv_heads", heads % kv_heads == 0
        yield "q and out must have heads * head_dim features", size(step["q"]) == size(step["out"]) == heads * dim
        yield "k and v must have kv_heads * head_dim features", size(step["k"]) == size(step["v"]) == kv_heads * dim
        causal = bool(step.get("causal", False))
        yield "a cache needs causal and no bias", "cache" not in step or (causal and "bias" not in step)


def _shape_rules(step: Step, graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[tuple[str, str, bool]]:
    """(tensor, the shape it must have, whether it has it) of each tensor of a step."""
    op = step["op"]
    if op == "embed":
        shape, width = shapes.get(step["table"], ()), graph.features(step["out"])
        yield step["table"], f"(entries, {width})", len(shape) == 2 and shape[0] > 0 and shape[1] == width
    elif op in ("layernorm", "rmsnorm", "linear"):
        width = graph.features(step["out"]) // step.get("groups", 1)
        for name in ("weight", "bias"):
            if name in step:
                yield step[name], f"({width},)", shapes.get(step[name]) == (width,)
    elif op == "rope":
        shape, half = shapes.get(step["freqs"], ()), step["head_dim"] // 2
        yield step["freqs"], f"(at most {half},)", len(shape) == 1 and 0 < shape[0] <= half
    elif op == "attention" and "bias" in step:
        shape, heads = shapes.get(step["bias"], ()), step["heads"]
        good = len(shape) == 2 and shape[0] == heads and shape[1] % 2 == 1
        yield step["bias"], f"({heads}, 2 * reach - 1)", good


def buffers_of(graph: Graph, names: Sequence[str]) -> list[str]:
    """Output names checked against the graph's.

    Raises:
        InvalidArgument: If one is no output.
    """
    for name in names:
        if name not in graph.outputs:
            raise InvalidArgument(f"run: {name!r} is no output, this model has {', '.join(graph.outputs)}; pass one.")
    return list(names)
