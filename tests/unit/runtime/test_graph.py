"""Graph: what is written is read back, and whatever a file might say wrong is refused by name."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from zeroskip import DamagedFile, FormatError, InvalidArgument
from zeroskip.runtime.graph import MAX_COUNT, Graph

SHAPES = {"table": (50, 8), "w": (8,), "b": (8,), "freqs": (2,), "distance": (2, 31), "per_head": (4,), "bias": (24,)}


def good() -> dict[str, Any]:
    """A graph of every operation, as JSON."""
    return {
        "inputs": ["ids", "positions"],
        "buffers": {"x": 8, "n": 8, "qkv": 24, "o": 8, "e": 8, "l": 8},
        "views": {"q": ["qkv", 0, 8], "k": ["qkv", 8, 8], "v": ["qkv", 16, 8]},
        "steps": [
            {"op": "embed", "out": "x", "table": "table", "input": "ids"},
            {"op": "embed", "out": "x", "table": "table", "input": "positions", "add": True, "offset": 2},
            {"op": "layernorm", "in": "x", "out": "n", "weight": "w", "bias": "b", "eps": 1e-5},
            {"op": "linear", "in": "n", "out": "qkv", "linear": "m", "bias": "bias", "activation": "gelu"},
            {"op": "rmsnorm", "in": "q", "out": "q", "weight": "per_head", "eps": 1e-6, "groups": 2},
            {"op": "rope", "in": "q", "heads": 2, "head_dim": 4, "freqs": "freqs", "scale": 1.5},
            {"op": "attention", "q": "q", "k": "k", "v": "v", "out": "o", "heads": 2, "kv_heads": 2, "head_dim": 4}
            | {"scale": 0.5, "bias": "distance"},
            {"op": "glu", "gate": "o", "up": "x", "out": "o", "activation": "silu"},
            {"op": "add", "a": "o", "b": "x", "out": "x"},
            {"op": "activation", "in": "x", "out": "x", "activation": "tanh"},
            {"op": "linear", "in": "x", "out": "o", "linear": "square", "residual": "n"},
            {"op": "last", "in": "o", "out": "l"},
            {"op": "pool", "in": "o", "out": "e", "mode": "mean", "normalize": True},
        ],
        "outputs": ["o", "l", "e"],
        "max_positions": 48,
    }


def test_round_trip_through_json() -> None:
    graph = Graph.from_json(json.loads(json.dumps(good())))
    graph.check_tensors(SHAPES)
    assert json.loads(json.dumps(graph.to_json())) == good()
    assert Graph.from_json(graph.to_json()) == graph
    assert set(graph.tensor_names()) == set(SHAPES)
    assert graph.linear_shapes() == {"m": (24, 8), "square": (8, 8)}
    assert graph.linear_names() == ("m", "square")
    assert graph.features("k") == 8


def test_a_graph_cannot_be_changed() -> None:
    graph = Graph.from_json(good())
    with pytest.raises(TypeError):
        graph.buffers["x"] = 9  # type: ignore[index]
    with pytest.raises(TypeError):
        graph.steps[0]["op"] = "rope"  # type: ignore[index]


def _set(*path: Any) -> Callable[[dict[str, Any]], None]:
    """Sets data[path[0]][path[1]]... to the last item."""

    def change(data: Any) -> None:
        for key in path[:-2]:
            data = data[key]
        data[path[-2]] = path[-1]

    return change


def _drop(*path: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in path[:-1]:
            data = data[key]
        del data[path[-1]]

    return change


WRONG: list[tuple[Callable[[dict[str, Any]], None], type[Exception], str]] = [
    (_set("steps", 0, "op", "exec"), FormatError, r"steps\[0\]: op is 'exec'"),
    (_set("steps", 0, "op", ["embed"]), FormatError, "op is"),
    (_drop("steps", 0, "op"), FormatError, "op is None"),
    (_drop("steps", 0, "table"), FormatError, r"steps\[0\] \(embed\): lacks table"),
    (_set("steps", 0, "extra", 1), FormatError, "unknown field 'extra'"),
    (_set("steps", 0, "input", "masks"), FormatError, "input is 'masks'"),
    (_set("steps", 0, "out", "nowhere"), FormatError, "out is 'nowhere', it must be a buffer or view"),
    (_set("steps", 0, "out", 3), FormatError, "out is 3"),
    (_set("steps", 1, "offset", -1), FormatError, "offset is -1"),
    (_set("steps", 1, "offset", 1 << 40), FormatError, "offset is"),
    (_set("steps", 1, "add", "yes"), FormatError, "add is 'yes', it must be true or false"),
    (_set("steps", 2, "eps", -1.0), FormatError, "eps is -1.0"),
    (_set("steps", 2, "eps", float("nan")), FormatError, "eps is nan"),
    (_set("steps", 2, "eps", True), FormatError, "eps is True"),
    (_set("steps", 2, "out", "qkv"), FormatError, "in and out must have the same features"),
    (_set("steps", 4, "groups", 3), FormatError, "groups must divide"),
    (_set("steps", 3, "activation", "quick"), FormatError, "activation is 'quick'"),
    (_set("steps", 3, "in", "q"), FormatError, "must be whole buffers"),
    (_set("steps", 3, "in", "qkv"), FormatError, "out must differ"),
    (_set("steps", 10, "residual", "o"), FormatError, "out must differ"),
    (_set("steps", 10, "residual", "qkv"), FormatError, "residual and out"),
    (_set("steps", 3, "linear", ""), FormatError, "linear is ''"),
    (_set("steps", 5, "heads", 3), FormatError, "heads \\* head_dim"),
    (_set("steps", 6, "heads", 0), FormatError, "heads is 0"),
    (_set("steps", 6, "kv_heads", 1), FormatError, "kv_heads \\* head_dim"),
    (_set("steps", 6, "heads", True), FormatError, "heads is True"),
    (_set("steps", 6, "cache", 0), FormatError, "a cache needs causal"),
    (_set("steps", 7, "up", "qkv"), FormatError, "gate, up and out"),
    (_set("steps", 12, "mode", "median"), FormatError, "mode is 'median'"),
    (_set("buffers", "x", 0), FormatError, r"buffers\['x'\] is 0"),
    (_set("buffers", "x", 1 << 40), FormatError, r"buffers\['x'\]"),
    (_set("buffers", "x", "8"), FormatError, r"buffers\['x'\] is '8'"),
    (_set("buffers", "q", 8), FormatError, "has the name of a buffer"),
    (_set("views", "q", ["qkv", 20, 8]), FormatError, "leaves 'qkv'"),
    (_set("views", "q", ["qkv", -1, 8]), FormatError, "leaves 'qkv'"),
    (_set("views", "q", ["q", 0, 8]), FormatError, "names 'q'"),
    (_set("views", "q", [["qkv"], 0, 8]), FormatError, "it must be a buffer"),
    (_set("views", "q", ["qkv", 0]), FormatError, "must be \\(buffer, first, features\\)"),
    (_set("views", "q", "qkv"), DamagedFile, "views"),
    (_set("buffers", [1]), DamagedFile, "buffers is list"),
    (_set("steps", {}), DamagedFile, "steps is dict"),
    (_set("steps", 0, 7), DamagedFile, "steps is int"),
    (_set("steps", []), FormatError, "no outputs or no steps"),
    (_set("outputs", []), FormatError, "no outputs"),
    (_set("outputs", ["q"]), FormatError, "outputs names 'q'"),
    (_set("outputs", [["o"]]), DamagedFile, "outputs is list"),
    (_set("outputs", "o"), DamagedFile, "outputs is str"),
    (_set("inputs", ["mask"]), FormatError, "inputs names 'mask'"),
    (_drop("inputs"), DamagedFile, "inputs is NoneType"),
    (_set("max_positions", -1), FormatError, "max_positions"),
    (_set("max_positions", "48"), FormatError, "max_positions"),
    (_set("import", "os"), DamagedFile, "unknown field 'import'"),
]


@pytest.mark.parametrize(("change", "kind", "says"), WRONG)
def test_what_does_not_fit_is_refused(change: Callable[[Any], None], kind: type[Exception], says: str) -> None:
    data = copy.deepcopy(good())
    change(data)
    with pytest.raises(kind, match=says):
        Graph.from_json(data)


@pytest.mark.parametrize("data", [None, [], "graph", 3])
def test_no_object_is_a_damaged_file(data: Any) -> None:
    with pytest.raises(DamagedFile, match="must be an object"):
        Graph.from_json(data)


def test_counts_have_a_limit() -> None:
    data = good()
    data["steps"] = data["steps"][:1] * (MAX_COUNT + 1)
    with pytest.raises(FormatError, match="steps has"):
        Graph.from_json(data)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("table", (50, 7)),
        ("table", (0, 8)),
        ("table", (8,)),
        ("w", (9,)),
        ("b", ()),
        ("bias", (8,)),
        ("freqs", (3,)),
        ("freqs", (0,)),
        ("distance", (2, 30)),
        ("distance", (1, 31)),
        ("per_head", (8,)),
    ],
)
def test_tensors_that_do_not_fit_are_named(name: str, shape: tuple[int, ...]) -> None:
    graph = Graph.from_json(good())
    with pytest.raises(FormatError, match=f"'{name}' has shape"):
        graph.check_tensors({**SHAPES, name: shape})
    with pytest.raises(FormatError, match=f"names tensor '{name}', there is none"):
        graph.check_tensors({key: value for key, value in SHAPES.items() if key != name})


def test_pooling_needs_a_known_mode_and_an_output() -> None:
    graph = Graph.from_json(good())
    assert graph.with_pooling("mean", source="o").outputs == ("o", "l", "e", "embedding")
    with pytest.raises(InvalidArgument, match="mode is 'sum'"):
        graph.with_pooling("sum", source="o")
    with pytest.raises(InvalidArgument, match="'hidden' is no output"):
        graph.with_pooling("mean")
