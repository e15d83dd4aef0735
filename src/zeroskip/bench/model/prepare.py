"""Before anything is timed: the text, the reference, and every model that takes part, built once and kept on disk."""

from __future__ import annotations

import copy
import importlib.util
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import models, runtime
from ..._errors import InvalidArgument, ZeroskipError
from ...models import LoadedModel
from ...runtime import CompiledModel
from .. import quality, saved
from ..embed import texts
from ..embed.texts import folder_bytes
from ..resume import read_json
from ..rivals import TorchDecoder
from ..webpage import write_text
from . import artefacts
from .depth import influences, without_blocks
from .entries import MOST_KL, Entry
from .settings import CHECK_TOKENS, ModelSettings, values_and_group

Progress = Callable[[str, int, int], None]
Build = Callable[[], Entry]
_CALIBRATION_WINDOWS = 8
_PACKAGES = {
    "torch": ("torch", "transformers"),
    "onnxruntime": ("onnx_ir", "onnxruntime", "onnxruntime_genai"),
    "openvino": ("openvino", "nncf"),
    "llamacpp": ("llama_cpp",),
}
_LABELS = {
    "zeroskip": "zeroskip",
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "llamacpp": "llama.cpp",
}
_RIVAL_VALUES = {
    "torch": ("float32", "bfloat16"),
    "onnxruntime": ("float32", "int8", "int4"),
    "openvino": ("float32", "int8", "int4"),
    "llamacpp": ("float16", "int8", "int4"),
}


@dataclass
class Ground:
    """What entries are built from.

    Args:
        settings: What was asked for.
        dense: The dense model.
        ids: Tokens that are measured on.
        calibration: Tokens that are not, for the influence of blocks.
        folder: Where files go.
        progress: Called with (stage, done, total).
    """

    settings: ModelSettings
    dense: LoadedModel
    ids: npt.NDArray[np.int32]
    calibration: npt.NDArray[np.int32]
    folder: Path
    progress: Progress

    @cached_property
    def torch_folder(self) -> Path:
        """The dense model as Hugging Face keeps it, in float32."""
        return artefacts.save_torch(self.dense, self.folder / "torch-float32", "float32")

    @cached_property
    def blocks(self) -> int:
        """How many blocks it has."""
        return int(self.dense.model.config.num_hidden_layers)

    @cached_property
    def influence(self) -> list[float]:
        """What each block changes."""
        windows = quality.windows(self.calibration, length=self.settings.window, count=_CALIBRATION_WINDOWS)
        return influences(self.dense, windows)

    @property
    def expected(self) -> Path:
        """The dense model's logits of the first tokens."""
        return self.folder / "expected-dense.npy"


def parameters(loaded: LoadedModel) -> int:
    """Numbers in the model, tied ones once."""
    return sum(int(item.numel()) for item in loaded.model.parameters())


def dense_model(settings: ModelSettings) -> LoadedModel:
    """The dense model.

    Raises:
        InvalidArgument: If it is no decoder, has no tokenizer, or does not take so many tokens.
    """
    loaded = models.load(settings.model)
    if loaded.kind != "decoder":
        raise InvalidArgument(f"bench model: {loaded.name} is no language model; for encoders there is bench embed.")
    if loaded.tokenizer is None:
        raise InvalidArgument(f"bench model: {loaded.name} has no tokenizer; pass a folder that has one.")
    positions = int(getattr(loaded.model.config, "max_position_embeddings", 0) or settings.room)
    if settings.room > positions:
        raise InvalidArgument(
            f"bench model: {loaded.name} takes {positions} tokens, {settings.room} are asked for; "
            "pass smaller --prompt, --window or --context."
        )
    return loaded


def tokens(settings: ModelSettings, loaded: LoadedModel) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """What is measured on, and what is calibrated with.

    Raises:
        InvalidArgument: If the text is too short.
    """
    lines = texts.measured_lines(settings.text, 10**9)
    others = texts.calibration_lines(settings.calibration, lines, 10**9)
    measured, other = (_encode(loaded, found) for found in (lines, others))
    need = max(settings.window * settings.windows, settings.prompt, settings.context, 2 * CHECK_TOKENS)
    if measured.size < need:
        raise InvalidArgument(
            f"bench model: {settings.text} has {measured.size} tokens, {need} are needed; pass a longer text or fewer "
            "--windows."
        )
    return measured, other


def _encode(loaded: LoadedModel, lines: list[str]) -> npt.NDArray[np.int32]:
    found = loaded.tokenizer("\n".join(lines), add_special_tokens=False, verbose=False)["input_ids"]
    return np.asarray(found, dtype=np.int32)


def write_reference(ground: Ground, path: Path) -> None:
    """The dense model's logits of every window: float32, (tokens, vocabulary)."""
    settings, decoder = ground.settings, TorchDecoder(ground.dense)
    scratch = path.with_name(f".{path.name}")
    made: Any = None
    for place, row in enumerate(quality.windows(ground.ids, length=settings.window, count=settings.windows)):
        logits = decoder.logits(row)
        if made is None:
            shape = (settings.window * settings.windows, logits.shape[1])
            made = np.lib.format.open_memmap(scratch, "w+", np.float32, shape)
        made[place * settings.window : (place + 1) * settings.window] = logits
        ground.progress("reference", place + 1, settings.windows)
    made.flush()
    scratch.replace(path)


def entries(ground: Ground) -> list[Entry]:
    """Everything that takes part, built. Each is on disk at once, and not built again."""
    np.save(ground.expected, TorchDecoder(ground.dense).logits(ground.ids[:CHECK_TOKENS]))
    builds = list(_builds(ground))
    found = []
    for done, (key, build) in enumerate(builds):
        ground.progress("preparing", done, len(builds))
        path = ground.folder / f"entry-{file_name(key)}.json"
        if path.is_file():
            found.append(Entry.from_json(read_json(path, "bench model")))
            continue
        made = build()
        if made.disk_bytes is None and made.files:
            made = replace(made, disk_bytes=folder_bytes([Path(name) for name in made.files]))
        write_text(path, json.dumps(made.as_json(), indent=1, allow_nan=False) + "\n")
        found.append(made)
    ground.progress("preparing", len(builds), len(builds))
    return found


def _builds(ground: Ground) -> Iterator[tuple[str, Build]]:
    """Every key, and what builds its entry: rivals first, then ours, dense before sparse."""
    settings = ground.settings
    for engine in settings.engines:
        for values in _RIVAL_VALUES.get(engine, ()):
            yield f"{engine}:{values}", partial(_rival, ground, engine, values)
    if "zeroskip" not in settings.engines:
        return
    for label, words, model in _own_models(ground):
        for values in settings.values:
            yield _own_key(values, label), partial(_own, ground, values, model, label, words)
    for folder in settings.compiled:
        yield f"zeroskip:{folder.name}", partial(_given, ground, folder)


def _own_models(ground: Ground) -> Iterator[tuple[str, str, _Once]]:
    """What we compile: the dense model, smaller ones, sparse ones; each with a label and words."""
    settings, blocks = ground.settings, ground.blocks
    yield "", "the dense model", _Once(lambda: ground.dense)
    for keep in settings.depth if settings.depth is not None else [round(0.8 * blocks)]:
        words = f"{blocks - keep} of {blocks} blocks dropped"
        yield f"{keep}-blocks", words, _Once(partial(_shallow, ground, keep))
    for level in settings.sparsity:
        words = f"{level:.0%} of the linear layers pruned by {settings.method}, once, nothing trained"
        yield f"sparse-{level:g}", words, _Once(partial(_pruned, ground, level))


class _Once:
    """A model that is made when it is first needed."""

    def __init__(self, make: Callable[[], LoadedModel]) -> None:
        self._make = make

    @cached_property
    def value(self) -> LoadedModel:
        """The model."""
        return self._make()


def _shallow(ground: Ground, keep: int) -> LoadedModel:
    return without_blocks(ground.dense, keep, ground.influence)


def _pruned(ground: Ground, level: float) -> LoadedModel:
    pruned = replace(ground.dense, model=copy.deepcopy(ground.dense.model))
    models.prune(
        pruned,
        method=ground.settings.method,
        sparsity=level,
        calibration=ground.settings.calibration,
        refit="none",
        progress=lambda stage, done, total: ground.progress(f"pruning to {level:.0%}", done, total),
    )
    return pruned


def file_name(key: str) -> str:
    """A row's key as a part of a file's name."""
    return key.replace(":", "-").replace("/", "-")


def _own_key(values: str, label: str) -> str:
    return ":".join(filter(None, ("zeroskip", values, label)))


def _own(ground: Ground, values: str, model: _Once, label: str, words: str) -> Entry:
    """A model compiled in a value type, and saved."""
    key = _own_key(values, label)
    folder = ground.folder / file_name(key)
    if not folder.is_dir():
        dtype, group = values_and_group(values)
        runtime.compile(model.value, values=dtype, group=group, threads=ground.settings.threads).save(folder)
    return _compiled(ground, folder, model.value, key, f"{words}, compiled in {values}")


def _given(ground: Ground, folder: Path) -> Entry:
    """A compiled model that was named."""
    try:
        return _compiled(ground, folder.resolve(), ground.dense, f"zeroskip:{folder.name}", f"{folder.name}, as given")
    except ZeroskipError as error:
        blank = Entry(f"zeroskip:{folder.name}", f"zeroskip, {folder.name}", "zeroskip", "float32", "as given")
        return blank.without("failed", str(error))


def _compiled(ground: Ground, folder: Path, loaded: LoadedModel, key: str, how: str) -> Entry:
    """A compiled model, with the logits of torch on the weights that it holds."""
    model = runtime.load(folder)
    if not isinstance(model, CompiledModel) or model.kind != "decoder":
        raise InvalidArgument(f"bench model: {folder} is no compiled language model; pass one.")
    expected = ground.folder / f"expected-{file_name(key)}.npy"
    np.save(expected, TorchDecoder(saved.with_saved_weights(loaded, folder)).logits(ground.ids[:CHECK_TOKENS]))
    weights = sum(layer.shape[0] * layer.shape[1] for layer in model.plan)
    zeros = sum(layer.sparsity * layer.shape[0] * layer.shape[1] for layer in model.plan)
    rounded = "".join(f", x in {bits} bits" for bits in saved.rounded_bits(model))
    return Entry(
        key=key,
        label=", ".join(key.split(":")).replace("-", " "),
        engine="zeroskip",
        values=model.values,
        how=how + rounded,
        sparsity=round(zeros / max(weights, 1), 4),
        layers=int(loaded.model.config.num_hidden_layers),
        spec={"folder": str(folder)},
        files=(str(folder),),
        expected=str(expected),
        most_kl=MOST_KL[saved.arithmetic(model)],
    )


def _rival(ground: Ground, engine: str, values: str) -> Entry:
    """The dense model in another engine, or an entry that says why not."""
    entry = Entry(
        key=f"{engine}:{values}",
        label=f"{_LABELS[engine]}, {values}",
        engine=engine,
        values=values,
        how="the dense model",
        layers=ground.blocks,
        expected=str(ground.expected),
        most_kl=MOST_KL[values],
    )
    absent = [name for name in _PACKAGES[engine] if importlib.util.find_spec(name) is None]
    if absent:
        names = " ".join(name.replace("llama_cpp", "llama-cpp-python").replace("_", "-") for name in absent)
        return entry.without("missing", f"not installed: pip install {names}")
    try:
        return _BUILD[engine](ground, entry)
    except Exception as error:  # converters raise anything: a row says so, and the others go on
        return entry.without("failed", f"building it failed: {type(error).__name__}: {error}")


def _torch(ground: Ground, entry: Entry) -> Entry:
    folder = ground.torch_folder
    if entry.values != "float32":
        folder = artefacts.save_torch(ground.dense, ground.folder / f"torch-{entry.values}", entry.values)
    return replace(
        entry,
        how="Hugging Face's model, scaled dot product attention, a bare greedy loop",
        spec={"folder": str(folder), "dtype": entry.values},
        files=tuple(map(str, folder.glob("*.safetensors"))),
    )


def _onnxruntime(ground: Ground, entry: Entry) -> Entry:
    folder = ground.folder / f"onnx-{entry.values}"
    last, whole = artefacts.build_onnx(ground.torch_folder, folder, entry.values)
    how = "its own model builder: grouped-query attention, keys and values in place"
    if entry.values != "float32":
        how += f"; MatMulNBits, groups of {artefacts.GROUP}, x in 8 bits"
    files = (str(last), *(str(item) for item in last.parent.glob("model.onnx*data")))
    heads, width = artefacts.cache_sizes(ground.dense)
    spec = {"file": str(last), "whole": str(whole), "heads": heads, "width": width}
    return replace(entry, how=how, spec=spec, files=files)


def _openvino(ground: Ground, entry: Entry) -> Entry:
    plain = ground.folder / "openvino-float32.xml"
    if not plain.is_file():
        artefacts.convert_openvino(ground.dense, plain)
    path, how = plain, "keys and values as state"
    spec = {"precision": "f32", "cache": "f32"}
    if entry.values != "float32":
        path = artefacts.compress_openvino(plain, ground.folder / f"openvino-{entry.values}.xml", entry.values)
        how, spec = f"{how} in float16; weights by NNCF, x as the plug-in chooses", {"cache": "f16"}
    return replace(entry, how=how, spec={"file": str(path), **spec}, files=(str(path), str(path.with_suffix(".bin"))))


def _llamacpp(ground: Ground, entry: Entry) -> Entry:
    extra = ground.dense.extra
    if "gguf_file" not in extra:
        return entry.without("missing", "the model did not come as a GGUF file, which llama.cpp needs; pass one")
    source = Path(extra["folder"]) / extra["gguf_file"]
    path = artefacts.write_gguf(source, ground.folder / f"model-{entry.values}.gguf", entry.values)
    return replace(entry, how="its own quantiser, from the GGUF file", spec={"file": str(path)}, files=(str(path),))


_BUILD: dict[str, Callable[[Ground, Entry], Entry]] = {
    "torch": _torch,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "llamacpp": _llamacpp,
}
