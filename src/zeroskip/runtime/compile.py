"""Compile a model: lower it to a graph, measure every kernel on its weights, pack what wins."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument, KernelUnavailable, UnsupportedModel
from ..formats import Bitmask, SparseMatrix, to_bits
from ..io import DENSE, MIXED, DenseMatrix, Matrix, encode, smallest_format
from ..kernels import registry
from .choose import OPTIMIZE, choose
from .layerplan import Choice, LayerPlan, lane_limits
from .machine import fingerprint
from .measure import WORTH_TRYING, Group, Layer, Progress, groups_of, matrix_for, measure_groups, structure_of
from .packing import Ranges, merge_ranges, native, pack, threaded
from .text import Text, TextSettings, special_tokens, text_of
from .values import Values, check_values, in_format

if TYPE_CHECKING:
    from .compiled import CompiledModel
    from .fallback import CompiledModule
    from .floor.search import FloorSettings
    from .graph import Graph

Float32 = npt.NDArray[np.float32]

# Tokens at a time to measure for: of a decoder 4 stands for a few sequences, where dense kernels are at their best. An
# encoder never sees one: a text has two special tokens at least.
BATCH_SIZES = (1, 4, 16, 256)
ENCODER_BATCH_SIZES = (4, 16, 256)
# A model whose weights take less than this share of the last cache keeps them there between tokens.
_CACHED_SHARE = 0.75
_MOST_CACHE = 32 * 2**20


def compile(
    model: Any,
    *,
    tokenizer: Any = None,
    values: str | None = None,
    group: int | None = None,
    activations: str | None = None,
    batch_sizes: Sequence[int] | None = None,
    optimize: str = "balanced",
    kernels: Sequence[str] | None = None,
    budget_s: float = 40.0,
    threads: int | None = None,
    cache: bool = True,
    keep_cosine: float | None = None,
    calibration: Any = None,
    search_s: float | None = None,
    progress: Progress | None = None,
) -> CompiledModel | CompiledModule:
    """Compile a model for this processor.

    Args:
        model: A torch or Hugging Face model, a `models.LoadedModel`, a folder, hub id, GGUF file or short name; or a
            SentenceTransformer, whose `encode` is then the fast one.
        tokenizer: Of a model that is passed as an object: a Hugging Face tokenizer or the path of a tokenizer.json.
        values: Value type of the packed weights: float32, bfloat16, float16, int8 or int4. By default float32 for
            encoders and float16 for decoders, whose speed is a matter of bytes; rounding to float16 changes a weight by
            2^-11 of itself at most, which is small beside what pruning did. int8 and int4 have scales, and cost what
            `zeroskip eval` measures; embedding tables are then float16, and so is a head that is tied to one.
        group: Columns that share a scale, for int8 and int4: 32, 64 or 128, or 0 for a whole row. By default 0 for int8
            and 32 for int4.
        activations: "int8", the default for int8 and int4 weights, lets kernels be chosen that round x to 8 bits, a
            scale for each token, and multiply in integers; "float32" does not. "bfloat16" is for bfloat16 weights, and
            lets kernels round x to bfloat16 (AMX). "int16" lets sparse kernels multiply in fixed point of 16 bits,
            weights of any type, which costs far less than int8. By default x of other weights is as it comes.
        batch_sizes: Tokens at a time to measure for; None: 4, 16 and 256, and 1 but of an encoder.
        optimize: "balanced" packs a layer once for all batch sizes, again where that would lose to dense;
            "speed" packs whatever is fastest at each; "memory" packs the smallest that is not slower than dense.
        kernels: Names of the sparse kernels to choose from; None for all. Dense ones are always measured.
        budget_s: Time to measure, in all.
        threads: Threads of the native kernels, for the whole process; None leaves them as they are.
        cache: Whether to take what earlier compilations measured on layers like these; the reasons then say "from
            cache". False measures anew. docs/compile.md says where it is kept.
        keep_cosine: Of an encoder: search for the fastest model whose embeddings keep this mean cosine to those of the
            model as given, on lines held back from `calibration`. Layers are pruned and rounded, each as far as pays;
            the result's `floor` says what was chosen and why. `values` and `activations` then limit the choice.
        calibration: Text of the search: a list of lines, a path, a name of `datasets.texts`; None is the
            documentation inside this Python. One half prunes, the other decides.
        search_s: Time for the search, 900 by default; one trial is always made.
        progress: Called with (stage, done, total); stages are lower, read, measure and pack, and those of the search.
    Returns:
        The compiled model, called like the one it came from: a `CompiledModel`, or of an unknown family a
        `CompiledModule`, which keeps the torch modules.
    Raises:
        UnsupportedModel: If it is neither of a known family nor a torch model with linear layers.
    """
    check_values(values, group, activations)
    _check(batch_sizes, optimize, kernels, budget_s, threads)
    floor = floor_settings(keep_cosine, calibration, search_s)
    from .. import models

    loaded = models.load(model, tokenizer=tokenizer)
    if threads is not None:
        native().set_num_threads(threads)
    sizes = sorted(set(batch_sizes or (ENCODER_BATCH_SIZES if loaded.kind == "encoder" else BATCH_SIZES)))
    shown = progress or (lambda stage, done, total: None)
    settings = Settings(values, group, activations, sizes, optimize, kernels, budget_s, cache, shown)
    if floor is not None:
        from .floor.search import compile_above

        return taken_over(loaded, compile_above(loaded, settings, floor))
    if loaded.family == "unknown":
        from .fallback import compile_modules

        return compile_modules(loaded, settings)
    try:
        compiled = compile_known(loaded, settings)
    except UnsupportedModel as error:
        from .fallback import compile_modules

        return compile_modules(loaded, settings, why=str(error))
    return taken_over(loaded, compiled)


def taken_over(loaded: Any, compiled: CompiledModel) -> CompiledModel:
    """The compiled model, which a SentenceTransformer's `encode` uses from now on."""
    transformer = loaded.extra.get("sentence_transformer")
    if transformer is not None:
        from .sentence import take_over

        take_over(transformer, compiled)
    return compiled


@dataclass(frozen=True)
class Settings:
    """The arguments of one compilation, checked."""

    values: str | None
    group: int | None
    activations: str | None
    sizes: Sequence[int]
    optimize: str
    kernels: Sequence[str] | None
    budget_s: float
    cache: bool
    progress: Progress
    layer_values: Mapping[str, Values] = field(default_factory=dict)  # of layers that differ from `values`

    def values_of(self, kind: str) -> Values:
        """How the weights of an encoder or a decoder are stored."""
        return Values.of(self.values, self.group, self.activations, kind=kind)


def floor_settings(keep_cosine: float | None, calibration: Any, search_s: float | None) -> FloorSettings | None:
    """What was asked for a quality floor, checked; None where there is none."""
    if keep_cosine is None:
        for name, value in (("calibration", calibration), ("search_s", search_s)):
            if value is not None:
                raise InvalidArgument(
                    f"compile: {name} is given, but there is no floor to search for; pass keep_cosine with it."
                )
        return None
    from .floor.search import SEARCH_S, FloorSettings

    settings = FloorSettings(keep_cosine, calibration, SEARCH_S if search_s is None else search_s)
    settings.check()
    return settings


def compile_known(loaded: Any, settings: Settings) -> CompiledModel:
    """Compile a loaded model of a known family.

    Raises:
        UnsupportedModel: If it cannot be lowered.
    """
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
    values = settings.values_of(lowered.kind)
    tied = tied_tables(lowered.linears, lowered.tensors)
    layers = read_layers(lowered.linears, values, settings.progress, tied=tied, own=settings.layer_values)
    choices = measured_choices(layers, settings)
    ranges = pack_layers(layers, choices, settings.sizes, settings.progress)
    plan = tuple(plan_of(layer, choices[layer.name], ranges[layer.name]) for layer in layers)
    tensors = round_tables(lowered.tensors, graph, values.table)
    return CompiledModel(
        kind=lowered.kind,
        family=loaded.family,
        name=loaded.name,
        values=MIXED if settings.layer_values and _several(layers) else values.dtype,
        graph=graph,
        tensors=tensors,
        ranges=ranges,
        matrix_of=_stored(layers, plan, lowered.linears, {name: tensors[table] for name, table in tied.items()}),
        plan=plan,
        text=text,
        machine={**fingerprint(), "compile_s": round(time.perf_counter() - started, 3)},
        notes=_notes(loaded, lowered.kind),
    )


def _several(layers: Sequence[Layer]) -> bool:
    """Whether layers differ in value type."""
    return len({layer.values.dtype for layer in layers}) > 1


def _stored(
    layers: Sequence[Layer], plan: Sequence[LayerPlan], linears: Mapping[str, Float32], tables: Mapping[str, Any]
) -> Callable[[str], Matrix]:
    """What the file holds of each layer, made when it is asked for: codes are kept, numbers rounded once more."""
    stored = {item.name: item.format for item in plan}
    structures = {layer.name: layer.structured for layer in layers}
    types = {layer.name: layer.values for layer in layers}
    codes = {layer.name: layer.matrix for layer in layers if layer.values.quantised}
    numbers = {name: weight for name, weight in linears.items() if name not in codes}

    def matrix_of(name: str) -> Matrix:
        structure = structures[name]
        if name in codes:
            return in_format(codes[name], structure, stored[name])
        if structure is not None and structure.name == stored[name]:
            return structure
        if name in tables and stored[name] == DENSE:
            return DenseMatrix(tables[name], types[name].dtype)
        return encode(numbers[name], types[name].dtype, stored[name])

    return matrix_of


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


def read_layers(
    linears: Mapping[str, Float32],
    values: Values,
    progress: Progress,
    *,
    tied: Mapping[str, str] | None = None,
    own: Mapping[str, Values] | None = None,
) -> list[Layer]:
    """Each weight matrix with its values rounded and its zeros left out, where there are enough of them.

    Args:
        linears: By name.
        values: How they are stored.
        progress: Called with ("read", done, total).
        tied: Names of matrices that are an embedding table as well: beside codes they have values of their own.
        own: How layers are stored that differ from the others, by name.
    """
    done = 0

    def read(item: tuple[str, Float32]) -> Layer:
        nonlocal done
        name, weight = item
        how = (own or {}).get(name) or (values.head if values.quantised and name in (tied or ()) else values)
        whole = np.ascontiguousarray(weight, dtype=np.float32)
        sparsity = 1.0 - np.count_nonzero(whole) / whole.size
        if sparsity < WORTH_TRYING:
            layer = Layer(name, how.store(whole, DENSE, name=name), sparsity, values=how)
        else:
            matrix = how.store(whole, "bitmask", name=name)
            assert isinstance(matrix, Bitmask)
            layer = Layer(name, matrix, sparsity, structure_of(matrix, whole), how)
        done += 1
        progress("read", done, len(linears))
        return layer

    return threaded(read, linears.items())


def measured_choices(layers: Sequence[Layer], settings: Settings) -> dict[str, tuple[Choice, ...]]:
    """What each layer runs at each batch size."""
    groups = groups_of(layers)
    last_cache = int(native().cpu_info().get("l3_bytes", 0)) or 32 * 2**20
    last_cache = min(last_cache, _MOST_CACHE)  # virtual machines claim the whole socket's
    total = sum(layer.matrix.nbytes for layer in layers)
    measure_groups(
        groups,
        settings.sizes,
        float32_too=settings.optimize == "speed",
        only=settings.kernels,
        budget_s=settings.budget_s,
        cold_bytes=3 * last_cache // 2 if total > _CACHED_SHARE * last_cache else 0,
        cache=settings.cache,
        progress=settings.progress,
    )
    found: dict[str, tuple[Choice, ...]] = {}
    for group in groups:
        chosen = choose(group, settings.sizes, settings.optimize)
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


def plan_of(layer: Layer, choices: tuple[Choice, ...], ranges: Ranges) -> LayerPlan:
    """The plan entry of a packed layer."""
    formats = {registry.get(choice.kernel).format for choice in choices} - {DENSE}
    structured = layer.structured
    if not formats:
        stored = DENSE
    elif structured is not None and structured.name in formats:
        stored = structured.name
    else:
        nnz = layer.matrix.nnz if isinstance(layer.matrix, SparseMatrix) else layer.matrix.data.size
        stored = smallest_format(layer.matrix.shape, nnz, layer.values.dtype)
    nbytes = sum({id(packed): packed.nbytes for _, packed in ranges}.values())
    sparsity, values = round(layer.sparsity, 6), layer.values
    return LayerPlan(layer.name, layer.matrix.shape, sparsity, stored, values.dtype, nbytes, choices, values.group)


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
    batch_sizes: Sequence[int] | None,
    optimize: str,
    kernels: Sequence[str] | None,
    budget_s: float,
    threads: int | None,
) -> None:
    def refuse(name: str, value: object, rule: str, mend: str) -> Callable[[], None]:
        raise InvalidArgument(f"compile: {name} is {value!r}, {rule}; {mend}.")

    sizes = BATCH_SIZES if batch_sizes is None else batch_sizes
    if not sizes or not all(isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 65536 for n in sizes):
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


__all__ = ["BATCH_SIZES", "DenseMatrix", "Group", "UnsupportedModel", "compile"]
