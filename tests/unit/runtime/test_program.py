"""Programs made by hand: each operation against its definition in float64, and everything that a run refuses.

Bounds are those of float32 sums: n products of a row and a column are off by at most n u (|a| |b|), u = 2^-24.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from zeroskip import FormatError, InvalidArgument, ShapeError, _native
from zeroskip.runtime.graph import Graph
from zeroskip.runtime.program import Program

Array = np.ndarray[Any, Any]

U = 2.0**-24
LENGTHS = (1, 3, 64, 66, 8, 130)  # a sequence that crosses panels, one that fills one, padding lanes at the end
VOCABULARY = 300


def table(features: int, *, seed: int = 1, scale: float = 1.0) -> Array:
    return (scale * np.random.default_rng(seed).standard_normal((VOCABULARY, features))).astype(np.float32)


def random_ids(lengths: Sequence[int], seed: int = 0) -> list[Array]:
    generator = np.random.default_rng(seed)
    return [generator.integers(0, VOCABULARY, size=length).astype(np.int32) for length in lengths]


def pack(weight: Array) -> Any:
    return _native.pack("spmm_dense_f32_scalar", *weight.shape, "dense", {"data": weight}, "float32", {})


def program(
    buffers: Mapping[str, int],
    steps: Sequence[Mapping[str, Any]],
    tensors: Mapping[str, Array],
    outputs: Sequence[str],
    **more: Any,
) -> Program:
    linears = {name: ((None, pack(weight)),) for name, weight in more.pop("linears", {}).items()}
    inputs = ("ids", "positions", "types")
    return Program(Graph(inputs, dict(buffers), tuple(steps), tuple(outputs), **more), tensors, linears=linears)


def run(made: Program, ids: Sequence[Array], **arguments: Any) -> dict[str, Array]:
    """All outputs, from buffers that held NaN before."""
    outputs = arguments.get("outputs", made.graph.outputs)
    return made._run(ids, arguments.get("types"), arguments.get("cache"), outputs, None, fill_nan=True)


def one_step(step: Mapping[str, Any], tensors: Mapping[str, Array], *, features: int, out: int = 0) -> Program:
    """Embeds ids with the tensor `x`, then does one step from `x` to `y`."""
    embed = {"op": "embed", "out": "x", "table": "x", "input": "ids"}
    return program({"x": features, "y": out or features}, [embed, step], tensors, ["y"])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("features", [1, 7, 200])
def test_embed_gathers_adds_and_counts_positions(dtype: str, features: int) -> None:
    exact = table(features)
    stored: Array = exact
    if dtype == "float16":
        stored = exact.astype(np.float16)
        exact = stored.astype(np.float32)
    elif dtype == "bfloat16":
        stored = (exact.view(np.uint32) >> 16).astype(np.uint16)
        exact = (stored.astype(np.uint32) << 16).view(np.float32)
    steps = [
        {"op": "embed", "out": "x", "table": "t", "input": "ids"},
        {"op": "embed", "out": "x", "table": "t", "input": "positions", "add": True, "offset": 2},
        {"op": "embed", "out": "x", "table": "t", "input": "types", "add": True},
    ]
    made, ids = program({"x": features}, steps, {"t": stored}, ["x"]), random_ids(LENGTHS)
    types = [item % 2 for item in ids]
    places = np.concatenate([np.arange(length) for length in LENGTHS]) + 2
    joined = np.concatenate(ids)
    want = (exact[joined] + exact[places]) + exact[joined % 2]
    assert np.array_equal(run(made, ids, types=types)["x"], want)
    assert np.array_equal(run(made, ids)["x"], (exact[joined] + exact[places]) + exact[0])


@pytest.mark.parametrize("op", ["layernorm", "rmsnorm"])
@pytest.mark.parametrize(("features", "groups"), [(1, 1), (40, 1), (384, 1), (99, 3), (70, 7)])
def test_norms(op: str, features: int, groups: int) -> None:
    size = features // groups
    # A mean far from zero: sum(x^2) - n mean^2 would cancel.
    x = table(features) + np.float32(10.0)
    weight, bias = table(size, seed=2)[0], table(size, seed=3)[0]
    step = {"op": op, "in": "x", "out": "y", "weight": "w", "bias": "b", "eps": 1e-3, "groups": groups}
    made, ids = one_step(step, {"x": x, "w": weight, "b": bias}, features=features), random_ids(LENGTHS)
    for batch in (ids, ids[:1]):  # lanes, and one token alone
        parts = x[np.concatenate(batch)].astype(np.float64).reshape(-1, groups, size)
        centred = parts - (parts.mean(axis=2, keepdims=True) if op == "layernorm" else 0.0)
        want = centred / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-3) * weight + bias
        # The mean is off by n u |x|, which the division by the deviation magnifies.
        scale = 1 / np.sqrt((centred**2).mean(axis=2, keepdims=True) + 1e-3)
        bound = 4 * (size + 8) * U * (np.abs(parts).max() * scale + 1) * (np.abs(weight) + np.abs(bias) + 1)
        found = run(made, batch)["y"].reshape(parts.shape)
        assert (np.abs(found - want) <= bound).all()


def _gelu(x: Array) -> Array:
    return 0.5 * x * np.array([math.erfc(-value / math.sqrt(2)) for value in x.ravel()]).reshape(x.shape)


ACTIVATIONS = {
    "none": lambda x: x,
    "relu": lambda x: np.maximum(x, 0),
    "gelu": _gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1 + np.exp(-x)),
    "tanh": np.tanh,
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_and_glu(name: str) -> None:
    x = table(37, scale=4.0)
    step = {"op": "activation", "in": "x", "out": "y", "activation": name}
    glu = {"op": "glu", "gate": "x", "up": "x", "out": "y", "activation": name}
    ids = random_ids(LENGTHS)
    rows = x[np.concatenate(ids)].astype(np.float64)
    want = ACTIVATIONS[name](rows)
    bound = 8 * U * np.maximum(1, np.abs(rows))  # what vecmath.inl promises
    assert (np.abs(run(one_step(step, {"x": x}, features=37), ids)["y"] - want) <= bound).all()
    found = run(one_step(glu, {"x": x}, features=37), ids)["y"]
    assert (np.abs(found - want * rows) <= (bound + U * np.abs(want)) * np.abs(rows)).all()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_of_infinities_and_nan(name: str) -> None:
    special = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, 3e38, -3e38, 1e-40, 88.0, -88.0, 104.0], np.float32)
    step = {"op": "activation", "in": "x", "out": "y", "activation": name}
    made = one_step(step, {"x": special[:, None]}, features=1)
    found = run(made, [np.arange(special.size, dtype=np.int32)])["y"][:, 0]
    limits = {"none": [np.inf, -np.inf], "relu": [np.inf, 0], "tanh": [1, -1]}.get(name, [np.inf, np.nan])
    np.testing.assert_array_equal(found[:3], [*limits, np.nan])
    np.testing.assert_array_equal(np.isfinite(found[3:]), True)
    assert found[3] == found[4] == 0


def test_add_and_linear_with_residual_in_views() -> None:
    weight = table(12, seed=5)[:12]
    steps = [
        {"op": "embed", "out": "x", "table": "t", "input": "ids"},
        {"op": "add", "a": "left", "b": "right", "out": "right"},
        {"op": "linear", "in": "x", "out": "y", "linear": "w", "bias": "b", "activation": "relu", "residual": "x"},
    ]
    tensors = {"t": table(12), "b": table(12, seed=6)[0]}
    views = {"left": ("x", 0, 6), "right": ("x", 6, 6)}
    made = program({"x": 12, "y": 12}, steps, tensors, ["x", "y"], views=views, linears={"w": weight})
    ids = random_ids(LENGTHS)
    x = tensors["t"][np.concatenate(ids)].copy()
    x[:, 6:] += x[:, :6]
    found = run(made, ids)
    assert np.array_equal(found["x"], x)
    want = np.maximum(x.astype(np.float64) @ weight.T + tensors["b"], 0) + x
    bound = 16 * U * (np.abs(x) @ np.abs(weight).T + np.abs(tensors["b"]) + np.abs(x))
    assert (np.abs(found["y"] - want) <= bound).all()


@pytest.mark.parametrize("half", [1, 5, 8])
def test_rope(half: int) -> None:
    heads, dim = 3, 16
    freqs = (1.0 / 100.0 ** (np.arange(half) / half)).astype(np.float32)
    step = {"op": "rope", "in": "x", "heads": heads, "head_dim": dim, "freqs": "f", "scale": 1.25}
    embed = {"op": "embed", "out": "x", "table": "t", "input": "ids"}
    tensors = {"t": table(heads * dim), "f": freqs}
    made, ids = program({"x": heads * dim}, [embed, step], tensors, ["x"]), random_ids(LENGTHS)
    x = tensors["t"][np.concatenate(ids)].astype(np.float64).reshape(-1, heads, dim)
    places = np.concatenate([np.arange(length) for length in LENGTHS]).astype(np.float32)
    angle = (places[:, None] * freqs).astype(np.float64)[:, None]  # the product is float32's, as in the models
    first, second = x[..., :half], x[..., half : 2 * half]
    want = x.copy()
    want[..., :half] = 1.25 * (first * np.cos(angle) - second * np.sin(angle))
    want[..., half : 2 * half] = 1.25 * (second * np.cos(angle) + first * np.sin(angle))
    assert np.abs(run(made, ids)["x"].reshape(x.shape) - want).max() <= 8 * U * 1.25 * np.abs(x).max()


def attention_program(heads: int, kv_heads: int, dim: int, **fields: Any) -> tuple[Program, dict[str, Array]]:
    sizes = {"q": heads * dim, "k": kv_heads * dim, "v": kv_heads * dim}
    tensors = {name: table(size, seed=ord(name)) for name, size in sizes.items()}
    if "distance" in fields:
        tensors["distance"] = fields.pop("distance")
        fields["bias"] = "distance"
    steps: list[dict[str, Any]] = [{"op": "embed", "out": n, "table": n, "input": "ids"} for n in sizes]
    steps.append(
        {"op": "attention", "q": "q", "k": "k", "v": "v", "out": "o", "heads": heads, "kv_heads": kv_heads}
        | {"head_dim": dim, "scale": dim**-0.5, **fields}
    )
    return program({**sizes, "o": heads * dim}, steps, tensors, ["o"]), tensors


def attention_reference(
    tensors: Mapping[str, Array], ids: Array, heads: int, kv_heads: int, *, causal: bool
) -> tuple[Array, float]:
    """One sequence in float64, and the bound on a float32 result.

    A score is off by (d + 2) u sum |q k|, e^score relatively by as much, so a convex sum of values by twice that times
    max |v|.
    """
    q, k, v = (tensors[name][ids].astype(np.float64) for name in "qkv")
    length, dim = ids.size, q.shape[1] // heads
    q = q.reshape(length, heads, dim).transpose(1, 0, 2)
    k, v = (x.reshape(length, kv_heads, dim).transpose(1, 0, 2).repeat(heads // kv_heads, axis=0) for x in (k, v))
    scores = q @ k.transpose(0, 2, 1) * dim**-0.5
    off = (dim + 4) * U * (np.abs(q) @ np.abs(k).transpose(0, 2, 1) * dim**-0.5).max()
    if "distance" in tensors:
        reach = (tensors["distance"].shape[1] + 1) // 2
        scores += tensors["distance"][:, np.arange(length)[:, None] - np.arange(length) + reach - 1]
        off += 2 * U * np.abs(scores).max()
    if causal:
        scores = np.where(np.tril(np.ones((length, length), bool)), scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=2, keepdims=True))
    weights /= weights.sum(axis=2, keepdims=True)
    out = (weights @ v).transpose(1, 0, 2).reshape(length, heads * dim)
    return out, 2 * (off + (length + 8) * U) * float(np.abs(v).max())


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(1, 1, 1), (4, 4, 32), (6, 2, 20), (8, 1, 64), (5, 5, 7)])
@pytest.mark.parametrize("causal", [False, True])
def test_attention(heads: int, kv_heads: int, dim: int, causal: bool) -> None:
    made, tensors = attention_program(heads, kv_heads, dim, causal=causal)
    for lengths in (LENGTHS, (1,), (2, 1), (200,)):
        ids = random_ids(lengths)
        found = np.split(run(made, ids)["o"], np.cumsum(lengths)[:-1])
        for got, item in zip(found, ids, strict=True):
            want, bound = attention_reference(tensors, item, heads, kv_heads, causal=causal)
            assert np.abs(got - want).max() <= bound


def test_attention_with_a_bias_by_distance() -> None:
    distance = np.random.default_rng(3).standard_normal((4, 2 * 130 - 1)).astype(np.float32)
    made, tensors = attention_program(4, 4, 16, distance=distance)
    ids = random_ids(LENGTHS)
    found = np.split(run(made, ids)["o"], np.cumsum(LENGTHS)[:-1])
    for got, item in zip(found, ids, strict=True):
        want, bound = attention_reference(tensors, item, 4, 4, causal=False)
        assert np.abs(got - want).max() <= bound
    with pytest.raises(InvalidArgument, match="longer than the position bias reaches"):
        made.run(random_ids((131,)))


def test_attention_survives_scores_that_overflow_exp() -> None:
    made, tensors = attention_program(1, 1, 4, causal=True)
    for name in "qk":
        tensors[name] *= 100  # scores up to some 10^5; the tables are not copied
    (ids,) = random_ids((150,))
    want, _ = attention_reference(tensors, ids, 1, 1, causal=True)
    found = run(made, [ids])["o"]
    assert np.isfinite(found).all()
    # One key nearly always wins; where two are close, float32 scores of 10^5 are off by 10^-2 and more.
    assert np.median(np.abs(found - want)) < 1e-3


@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(1, 1, 1), (6, 2, 20), (7, 1, 64), (4, 4, 37)])
def test_cached_attention_equals_that_of_the_whole(heads: int, kv_heads: int, dim: int) -> None:
    made, tensors = attention_program(heads, kv_heads, dim, causal=True, cache=0)
    ids = random_ids((330, 5))
    caches = [made.new_cache(330), made.new_cache(5)]
    found: list[list[Array]] = [[], []]
    at = [0, 0]
    for sizes in ((63, 1), (1, 1), (1, 1), (130, 2), *(((1, 0),) * 70), (65, 0)):
        used = [index for index, size in enumerate(sizes) if size]
        parts = [ids[index][at[index] : at[index] + sizes[index]] for index in used]
        out = run(made, parts, cache=[caches[index] for index in used])["o"]
        for index, part in zip(used, np.split(out, np.cumsum([sizes[i] for i in used])[:-1]), strict=True):
            found[index].append(part)
            at[index] += sizes[index]
    assert [cache.length for cache in caches] == at == [330, 5]
    for index, item in enumerate(ids):
        want, bound = attention_reference(tensors, item, heads, kv_heads, causal=True)
        assert np.abs(np.concatenate(found[index]) - want).max() <= bound


def test_only_what_outputs_need_is_computed_but_a_cache_is_always_filled() -> None:
    made, _ = attention_program(2, 2, 8, causal=True, cache=0)
    graph = made.graph
    steps = (*graph.steps, {"op": "add", "a": "q", "b": "q", "out": "twice"})
    graph = Graph(graph.inputs, {**graph.buffers, "twice": 16}, steps, ("o", "twice"))
    made = Program(graph, {name: table(16, seed=ord(name)) for name in "qkv"}, linears={})
    seconds: dict[str, float] = {}
    made.run(random_ids((200,)), outputs=["twice"], profile=seconds)
    assert set(seconds) == {"embed", "add"}
    cache = made.new_cache(8)
    made.run(random_ids((3,)), outputs=["twice"], cache=cache, profile=seconds)
    assert "attention" in seconds
    assert cache.length == 3


def test_several_threads_share_one_program() -> None:
    made, _ = attention_program(4, 2, 16, causal=True)
    batches = [random_ids((20 + 30 * index,), seed=index) for index in range(6)]
    alone = [run(made, batch)["o"] for batch in batches]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            if not np.array_equal(made.run(batches[index])["o"], alone[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_threads_that_share_a_cache_are_refused_or_take_turns() -> None:
    made, _ = attention_program(4, 2, 16, causal=True, cache=0)
    cache, (ids,) = made.new_cache(4000), random_ids((200,))
    refused: list[str] = []

    def work() -> None:
        for _ in range(10):
            try:
                made.run([ids], cache=cache)
            except InvalidArgument as error:
                refused.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.length == 200 * (40 - len(refused)) <= 4000
    assert all("another run is using it" in text or "holds 4000 tokens" in text for text in refused)


def _embedding() -> Program:
    steps = [{"op": "embed", "out": "x", "table": "t", "input": "ids"}]
    steps.append({"op": "embed", "out": "x", "table": "p", "input": "positions", "add": True, "offset": 2})
    steps.append({"op": "embed", "out": "x", "table": "s", "input": "types", "add": True})
    tensors = {"t": table(4), "p": table(4)[:12], "s": table(4)[:2]}
    return program({"x": 4}, steps, tensors, ["x"], max_positions=11)


@pytest.mark.parametrize(
    ("ids", "types", "says"),
    [
        ([[300]], None, r"ids\[0\] is 300, outside \[0, 300\)"),
        ([[1, 2], [5, -1]], None, r"ids\[3\] is -1"),
        ([[1, 2]], [[0, 2]], r"types\[1\] is 2, outside \[0, 2\)"),
        ([[1] * 11], None, "11 tokens, but the position table serves 10"),
        ([[1] * 12], None, "12 tokens, but the model takes at most 11"),
        ([[1], []], None, "sequence 1 is empty"),
        ([[2**40]], None, "beyond 32 bits"),
    ],
)
def test_inputs_outside_their_tables_are_refused(ids: Any, types: Any, says: str) -> None:
    made = _embedding()
    arrays = [np.array(item, dtype=np.int64) for item in ids]
    kinds = None if types is None else [np.array(item, dtype=np.int32) for item in types]
    with pytest.raises(InvalidArgument, match=says):
        made.run(arrays, types=kinds)
    assert made.run([np.array([1, 2])])["x"].shape == (2, 4)


@pytest.mark.parametrize("ids", [[], np.array([1, 2]), [np.array([[1, 2]])], [np.array([1.0])], [np.array(3)]])
def test_ids_of_other_shapes_are_refused(ids: Any) -> None:
    with pytest.raises(ShapeError, match="run: ids"):
        _embedding().run(ids)
    with pytest.raises(ShapeError, match="other lengths"):
        _embedding().run([np.array([1, 2])], types=[np.array([0])])


def test_unknown_outputs_and_caches_without_layers_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="'logits' is no output, this model has x"):
        _embedding().run([np.array([1])], outputs=["logits"])
    with pytest.raises(InvalidArgument, match="keeps no cache"):
        _embedding().new_cache(4)
    made, _ = attention_program(1, 1, 4, causal=True, cache=0)
    for tokens in (0, -1, 2**40, "4"):
        with pytest.raises(InvalidArgument, match="max_tokens"):
            made.new_cache(tokens)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match="keeps none"):
        _embedding().run([np.array([1])], cache=made.new_cache(4))


EMBED = {"op": "embed", "out": "x", "table": "t", "input": "ids"}


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ([{"op": "add", "a": "x", "b": "x", "out": "y"}], "read before it is written"),
        ([{**EMBED, "add": True}], "read before it is written"),
        ([EMBED, {"op": "last", "in": "x", "out": "y"}, {"op": "add", "a": "x", "b": "y", "out": "x"}], "mixes"),
        ([EMBED, {"op": "last", "in": "x", "out": "y"}, {"op": "last", "in": "y", "out": "z"}], "needs tokens"),
        ([EMBED, {"op": "last", "in": "x", "out": "x"}], "another buffer"),
    ],
)
def test_programs_that_make_no_sense_are_refused(steps: Any, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        program({"x": 4, "y": 4, "z": 4}, steps, {"t": table(4)}, ["x"])


def test_tensors_and_matrices_must_fit() -> None:
    linear = {"op": "linear", "in": "x", "out": "y", "linear": "w"}
    graph = Graph(("ids",), {"x": 4, "y": 3}, (EMBED, linear), ("y",))
    good = pack(table(4)[:3])
    with pytest.raises(FormatError, match="names tensor 't', there is none"):
        Program(graph, {}, linears={"w": ((None, good),)})
    with pytest.raises(FormatError, match="'t' has dtype float64"):
        Program(graph, {"t": table(4).astype(np.float64)}, linears={"w": ((None, good),)})
    tensors = {"t": table(4)}
    with pytest.raises(FormatError, match="linears has no 'w'"):
        Program(graph, tensors, linears={})
    for variants, says in (
        ((), "no packed matrix"),
        (((None, pack(table(5)[:3])),), "does not fit"),
        (((None, pack(table(4)[:4])),), "does not fit"),
        (((8, good), (8, good)), "does not ascend"),
        (((8, good),), "not for any number"),
    ):
        with pytest.raises(FormatError, match=says):
            Program(graph, tensors, linears={"w": variants})


def test_the_number_of_lanes_picks_the_matrix() -> None:
    linear = {"op": "linear", "in": "x", "out": "y", "linear": "w"}
    graph = Graph(("ids",), {"x": 4, "y": 1}, (EMBED, linear), ("y",))
    ones = {scale: pack(np.full((1, 4), scale, np.float32)) for scale in (1, 2, 3)}
    variants = ((1, ones[1]), (16, ones[2]), (None, ones[3]))
    made = Program(graph, {"t": np.ones((9, 4), np.float32)}, linears={"w": variants})
    for tokens, scale in ((1, 1), (2, 2), (16, 2), (17, 3), (100, 3)):
        assert (made.run([np.ones(tokens, np.int32)])["y"] == 4 * scale).all()
