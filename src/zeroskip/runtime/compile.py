"""Compile a model: lower it to a graph, measure every kernel on its weights, pack what wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument, KernelUnavailable, UnsupportedModel
from ..formats import FLOATS, Bitmask, SparseMatrix, to_bits
from ..io import DENSE, DenseMatrix, Matrix, encode, smallest_format
from ..kernels import registry
from .choose import OPTIMIZE, choose
from .layerplan import Choice, LayerPlan, lane_limits
from .machine import fingerprint
from .measure import WORTH_TRYING, Group, Layer, Progress, groups_of, matrix_for, measure_groups, structure_of
from .packing import Packed, native, pack, threaded
from .text import Text, TextSettings, special_tokens, text_of

if TYPE_CHECKING:
    from .compiled import CompiledModel
    from .fallback import CompiledModule
    from .graph import Graph

Float32 = npt.NDArray[np.float32]
Ranges = tuple[tuple[int | None, Packed], ...]

BATCH_SIZES = (1, 16, 256)
DEFAULT_VALUES = {"encoder": "float32", "decoder": "float16"}
# A model whose weights take less than this share of the last cache keeps them there between tokens.
_CACHED_SHARE = 0.75
_MOST_CACHE = 32 * 2**20


def compile(
    model: Any,
    *,
    tokenizer: Any = None,
    values: str | None = None,
    batch_sizes: Sequence[int] = BATCH_SIZES,
    optimize: str = "balanced",
    kernels: Sequence[str] | None = None,
    budget_s: float = 40.0,
    threads: int | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> CompiledModel | CompiledModule:
    """Compile a model for this processor.

    Args:
        model: A torch or Hugging Face model, a `models.LoadedModel`, a folder, hub id, GGUF file or short name; or a
            SentenceTransformer, whose `encode` is then the fast one.
        tokenizer: Of a model that is passed as an object: a Hugging Face tokenizer or the path of a tokenizer.json.
        values: Value type of the packed weights: float32, bfloat16 or float16. By default float32 for encoders and
            float16 for decoders, whose speed is a matter of bytes; rounding to float16 changes a weight by 2^-11 of
            itself at most, which is small beside what pruning did.
        batch_sizes: Tokens at a time to measure for.
        optimize: "balanced" packs a layer once for all batch sizes, again only where that would lose to dense;
            "speed" packs whatever is fastest at each; "memory" packs the smallest that is not slower than dense.
        kernels: Names of the sparse kernels to choose from; None for all. Dense ones are always measured.
        budget_s: Time to measure, in all.
        threads: Threads of the native kernels, for the whole process; None leaves them as they are.
        cache: Whether to take what earlier compilations measured on layers like these; the reasons then say "from
            cache". False measures anew. docs/compile.md says where it is kept.
        progress: Called with (stage, done, total); stages are lower, read, measure and pack.
    Returns:
        The compiled model, called like the one it came from: a `CompiledModel`, or of an unknown family a
        `CompiledModule`, which keeps the torch modules.
    Raises:
        UnsupportedModel: If it is neither of a known family nor a torch model with linear layers.
    """
    _check(values, batch_sizes, optimize, kernels, budget_s, threads)
    from .. import models

    loaded = models.load(model, tokenizer=tokenizer)
    if threads is not None:
        native().set_num_threads(threads)
    sizes = sorted(set(batch_sizes))
    settings = Settings(values, sizes, optimize, kernels, budget_s, progress, cache)
    if loaded.family == "unknown":
        from .fallback import compile_modules

        return compile_modules(loaded, settings)
    try:
        compiled = _compile_known(loaded, settings)
    except UnsupportedModel as error:
        from .fallback import compile_modules

        return compile_modules(loaded, settings, why=str(error))
    transformer = loaded.extra.get("sentence_transformer")
    if transformer is not None:
        from .sentence import take_over

        take_over(transformer, compiled)
    return compiled


class Settings:
    """The arguments of one compilation."""

    def __init__(
        self,
        values: str | None,
        sizes: list[int],
        optimize: str,
        kernels: Sequence[str] | None,
        budget_s: float,
        progress: Progress | None,
        cache: bool = True,
    ) -> None:
        self.values = values
        self.sizes = sizes
        self.optimize = optimize
        self.kernels = kernels
        self.budget_s = budget_s
        self.cache = cache
        self.progress: Progress = progress or (lambda stage, done, total: None)


def _compile_known(loaded: Any, settings: Settings) -> CompiledModel:
    from .compiled import CompiledModel
    from .lowering import lower

    started = time.perf_counter()
    settings.progress("lower", 0, 1)
    lowered = lower(loaded.model)
    graph = lowered.graph
    text = _text_of(loaded, lowered.kind, graph.max_positions)
    if lowered.kind == "encoder":
        graph = graph.with_pooling({"cls": "first"}.get(text.settings.pooling or "", text.settings.pooling or "mean"))
    settings.progress("lower", 1, 1)
    values = settings.values or DEFAULT_VALUES[lowered.kind]
    layers = read_layers(lowered.linears, values, settings.progress)
    choices = measured_choices(layers, values, settings, ignored=(1,) if lowered.kind == "encoder" else ())
    ranges = pack_layers(layers, choices, settings.sizes, settings.progress)
    plan = tuple(plan_of(layer, choices[layer.name], values, ranges[layer.name]) for layer in layers)
    stored = {item.name: item.format for item in plan}
    structures = {layer.name: layer.structured for layer in layers}
    del layers
    tensors = round_tables(lowered.tensors, graph, values)
    tied = tied_tables(lowered.linears, lowered.tensors)

    def matrix_of(name: str) -> Matrix:
        structure = structures[name]
        if structure is not None and structure.name == stored[name]:
            return structure
        if name in tied and stored[name] == DENSE:
            return DenseMatrix(tensors[tied[name]], values)
        return encode(lowered.linears[name], values, stored[name])

    return CompiledModel(
        kind=lowered.kind,
        family=loaded.family,
        name=loaded.name,
        values=values,
        graph=graph,
        tensors=tensors,
        ranges=ranges,
        matrix_of=matrix_of,
        plan=plan,
        text=text,
        machine={**fingerprint(), "compile_s": round(time.perf_counter() - started, 3)},
        notes=_notes(loaded, lowered.kind),
    )


def _notes(loaded: Any, kind: str) -> list[str]:
    name = type(loaded.model).__name__
    if kind == "encoder" and "For" in name:
        return [f"the head of {name} is left out, the compiled model gives the last hidden state and embeddings"]
    return []


def round_tables(tensors: Mapping[str, Float32], graph: Graph, values: str) -> dict[str, npt.NDArray[Any]]:
    """The dense tensors with embedding tables in the value type of the weights; norms and biases stay float32."""
    tables = {step["table"] for step in graph.steps if step["op"] == "embed" and step["input"] == "ids"}
    return {name: to_bits(array, values) if name in tables else array for name, array in tensors.items()}


def tied_tables(linears: Mapping[str, Float32], tensors: Mapping[str, Float32]) -> dict[str, str]:
    """Weight matrices that are an embedding table as well, with the name of the table."""
    places = {(array.ctypes.data, array.shape): name for name, array in tensors.items() if array.ndim == 2}
    found = {name: places.get((weight.ctypes.data, weight.shape)) for name, weight in linears.items()}
    return {name: table for name, table in found.items() if table is not None}


def read_layers(linears: Mapping[str, Float32], values: str, progress: Progress) -> list[Layer]:
    """Each weight matrix with its values rounded and its zeros left out, where there are enough of them."""
    done = 0

    def read(item: tuple[str, Float32]) -> Layer:
        nonlocal done
        name, weight = item
        whole = np.ascontiguousarray(weight, dtype=np.float32)
        sparsity = 1.0 - np.count_nonzero(whole) / whole.size
        if sparsity < WORTH_TRYING:
            layer = Layer(name, encode(whole, values, DENSE), sparsity)
        else:
            matrix = encode(whole, values, "bitmask")
            assert isinstance(matrix, Bitmask)
            layer = Layer(name, matrix, sparsity, structure_of(matrix, whole))
        done += 1
        progress("read", done, len(linears))
        return layer

    return threaded(read, linears.items())


def measured_choices(
    layers: Sequence[Layer], values: str, settings: Settings, *, ignored: Sequence[int]
) -> dict[str, tuple[Choice, ...]]:
    """What each layer runs at each batch size."""
    groups = groups_of(layers)
    last_cache = int(native().cpu_info().get("l3_bytes", 0)) or 32 * 2**20
    last_cache = min(last_cache, _MOST_CACHE)  # virtual machines claim the whole socket's
    total = sum(layer.matrix.nbytes for layer in layers)
    measure_groups(
        groups,
        settings.sizes,
        values=values,
        float32_too=settings.optimize == "speed",
        only=settings.kernels,
        budget_s=settings.budget_s,
        cold_bytes=3 * last_cache // 2 if total > _CACHED_SHARE * last_cache else 0,
        cache=settings.cache,
        progress=settings.progress,
    )
    found: dict[str, tuple[Choice, ...]] = {}
    for group in groups:
        chosen = choose(group, settings.sizes, settings.optimize, values=values, ignored=ignored)
        found.update({layer.name: chosen for layer in group.layers})
    return found


def pack_layers(
    layers: Sequence[Layer], choices: Mapping[str, tuple[Choice, ...]], sizes: Sequence[int], progress: Progress
) -> dict[str, Ranges]:
    """Each layer packed for the kernels of its choices, by ranges of lanes."""
    limits = lane_limits(sizes)
    done = 0

    def pack_one(layer: Layer) -> Ranges:
        nonlocal done
        names = [choice.kernel for choice in choices[layer.name]]
        made = {name: pack(name, matrix_for(registry.get(name), layer)) for name in dict.fromkeys(names)}
        done += 1
        progress("pack", done, len(layers))
        return merge_ranges([(limit, made[name]) for limit, name in zip(limits, names, strict=True)])

    return dict(zip([layer.name for layer in layers], threaded(pack_one, layers), strict=True))


def merge_ranges(ranges: Sequence[tuple[int | None, Packed]]) -> Ranges:
    """Neighbouring ranges with one packing as one range."""
    kept: list[tuple[int | None, Packed]] = []
    for limit, packed in ranges:
        if kept and kept[-1][1] is packed:
            kept.pop()
        kept.append((limit, packed))
    return tuple(kept)


def plan_of(layer: Layer, choices: tuple[Choice, ...], values: str, ranges: Ranges) -> LayerPlan:
    """The plan entry of a packed layer."""
    formats = {registry.get(choice.kernel).format for choice in choices} - {DENSE}
    structured = layer.structured
    if not formats:
        stored = DENSE
    elif structured is not None and structured.name in formats:
        stored = structured.name
    else:
        nnz = layer.matrix.nnz if isinstance(layer.matrix, SparseMatrix) else layer.matrix.data.size
        stored = smallest_format(layer.matrix.shape, nnz, values)
    nbytes = sum({id(packed): packed.nbytes for _, packed in ranges}.values())
    return LayerPlan(layer.name, layer.matrix.shape, round(layer.sparsity, 6), stored, values, nbytes, choices)


def _text_of(loaded: Any, kind: str, positions: int) -> Text:
    """Tokenizer, limits and pooling of a loaded model that knows `positions` positions (0: any number)."""
    tokenizer, extra = loaded.tokenizer, loaded.extra
    if kind == "encoder":
        stated = [extra.get("max_seq_length"), getattr(tokenizer, "model_max_length", None), positions]
        limit = min((int(item) for item in stated if item and item < 2**31), default=None)
        settings = TextSettings(
            max_length=limit,
            pooling=extra.get("pooling", "mean"),
            normalize=bool(extra.get("normalize", False)),
            special=special_tokens(tokenizer),
        )
        return text_of(tokenizer, settings)
    settings = TextSettings(
        max_length=positions or None,
        stop_ids=_stop_ids(loaded),
        special=special_tokens(tokenizer),
        chat_template=_chat_template(tokenizer),
    )
    return text_of(tokenizer, settings)


def _stop_ids(loaded: Any) -> tuple[int, ...]:
    """Token ids that end a text: those of the generation settings, of the model and of the tokenizer."""
    found: list[int] = []
    for owner, key in (
        (getattr(loaded.model, "generation_config", None), "eos_token_id"),
        (getattr(loaded.model, "config", None), "eos_token_id"),
        (loaded.tokenizer, "eos_token_id"),
    ):
        value = getattr(owner, key, None)
        found += value if isinstance(value, list | tuple) else [] if value is None else [value]
    return tuple(dict.fromkeys(int(item) for item in found if item >= 0))


def _chat_template(tokenizer: Any) -> str | None:
    template = getattr(tokenizer, "chat_template", None)
    if isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None


def _check(
    values: str | None,
    batch_sizes: Sequence[int],
    optimize: str,
    kernels: Sequence[str] | None,
    budget_s: float,
    threads: int | None,
) -> None:
    def refuse(name: str, value: object, rule: str, mend: str) -> Callable[[], None]:
        raise InvalidArgument(f"compile: {name} is {value!r}, {rule}; {mend}.")

    if values is not None and values not in FLOATS:
        refuse("values", values, "which is no value type", f"choose one of: {', '.join(FLOATS)}")
    whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 65536 for n in batch_sizes)
    if not batch_sizes or not whole:
        refuse("batch_sizes", batch_sizes, "sizes lie in [1, 65536]", "pass for example (1, 16, 256)")
    if optimize not in OPTIMIZE:
        refuse("optimize", optimize, "which is no goal", f"choose one of: {', '.join(OPTIMIZE)}")
    if not budget_s > 0:
        refuse("budget_s", budget_s, "it must be above 0", "leave it out for 40")
    if threads is not None and threads < 1:
        refuse("threads", threads, "it must be at least 1", "leave it out for all cores")
    for name in kernels or ():
        kernel = registry.get(name)
        if kernel.origin != "native":
            raise KernelUnavailable(f"compile: kernel {name!r} is not native, a graph runs native ones; leave it out.")
        if why := kernel.why_not():
            raise KernelUnavailable(f"compile: kernel {name!r} cannot run here: {why}; choose another.")


__all__ = ["BATCH_SIZES", "DEFAULT_VALUES", "DenseMatrix", "Group", "UnsupportedModel", "compile"]
