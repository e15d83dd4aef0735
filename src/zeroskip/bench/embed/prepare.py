"""Before anything is timed: rivals are built, every result is checked, and each engine's fastest way is found."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import io, models, runtime
from ..._errors import InvalidArgument
from ...models import LoadedModel
from ...runtime import CompiledModel
from ...runtime.text import TextSettings
from .. import saved
from ..rivals import TorchEncoder, max_tokens
from ..webpage import write_text
from . import artefacts, texts
from .artefacts import Dense
from .entries import CHECK_LINES, EXACT, Entry, Variant, variant
from .settings import EmbedSettings

Float32 = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
CALIBRATION_LINES = 300
# An engine of another precision must agree with itself: dynamic int8 takes one scale for all texts of a batch.
SAME_INT8 = 0.9
_PACKAGES = {
    "torch": ("torch", "transformers"),
    "onnxruntime": ("onnx", "onnxruntime"),
    "onnxruntime-int8": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino"),
    "openvino-int8": ("onnx", "openvino", "nncf"),
}
_LABELS = {
    "torch": "torch",
    "onnxruntime": "ONNX Runtime",
    "onnxruntime-int8": "ONNX Runtime, int8",
    "openvino": "OpenVINO",
    "openvino-int8": "OpenVINO, int8",
    "deepsparse": "DeepSparse",
}


@dataclass(frozen=True)
class Ground:
    """What entries are built from.

    Args:
        settings: What was asked for.
        dense: The dense model.
        lines: What is embedded.
        reference: Their vectors by dense torch in float32.
        folder: Where files go.
    """

    settings: EmbedSettings
    dense: Dense
    lines: Sequence[str]
    reference: Float32
    folder: Path


@dataclass(frozen=True)
class Inputs:
    """What was found to fit, before anything is written.

    Args:
        dense: Name or folder of the dense model.
        limit: Most tokens of a text; None as the dense model says.
        lines: What is embedded.
    """

    dense: str
    limit: int | None
    lines: Sequence[str]


def inputs(settings: EmbedSettings) -> Inputs:
    """Open the models and read the text.

    Raises:
        InvalidArgument: If the models do not belong together, or one is no encoder.
    """
    opened = [io.open_saved(path) for path in settings.models]
    for path, item in zip(settings.models, opened, strict=True):
        if item.manifest.kind != "encoder":
            raise InvalidArgument(f"bench embed: {path} is a {item.manifest.kind}; pass compiled encoders.")
    limits = {path.name: _text(item).max_length for path, item in zip(settings.models, opened, strict=True)}
    if len(set(limits.values())) > 1:
        raise InvalidArgument(f"bench embed: models cut texts at different lengths ({limits}); compile them alike.")
    if settings.dense is None and not opened:
        raise InvalidArgument("bench embed: there is neither a compiled model nor a dense one; name one by dense.")
    dense = settings.dense or dense_name([item.manifest.name for item in opened])
    return Inputs(dense, next(iter(limits.values()), None), texts.measured_lines(settings.text, settings.lines))


def dense_model(settings: EmbedSettings, given: Inputs) -> tuple[LoadedModel, str]:
    """The dense model, cutting texts where the compiled ones do, and the single sentence.

    Raises:
        InvalidArgument: If it is no encoder, or no line has a sentence of the length asked for.
    """
    loaded = models.load(given.dense)
    if loaded.kind != "encoder":
        raise InvalidArgument(f"bench embed: {loaded.name} is no encoder; pass the dense encoder as dense.")
    limit = given.limit or max_tokens(loaded)
    loaded = replace(loaded, extra={**loaded.extra, "max_seq_length": limit})
    tokenizer = loaded.tokenizer
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise InvalidArgument(f"bench embed: {loaded.name} has no fast tokenizer, which every engine here uses.")
    return loaded, texts.sentence(given.lines, settings.tokens, lambda text: len(tokenizer(text)["input_ids"]))


def ground(settings: EmbedSettings, lines: Sequence[str], loaded: LoadedModel, single: str, folder: Path) -> Ground:
    """Write the dense model's tokenizer and the texts, and embed them."""
    folder.mkdir(parents=True, exist_ok=True)
    base = _base(loaded, folder / "tokenizer.json")
    calibration = texts.calibration_lines(settings.text, lines, min(CALIBRATION_LINES, max(settings.lines, 16)))
    write_text(folder / "lines.json", json.dumps(lines))
    write_text(folder / "single.json", json.dumps([single]))
    reference = TorchEncoder(loaded).embed(lines)
    np.save(folder / "reference.npy", reference)
    return Ground(settings, Dense(loaded, folder, base, calibration), lines, reference, folder)


def dense_name(names: Sequence[str]) -> str:
    """The dense model's name, where a compiled model has it.

    Raises:
        InvalidArgument: If none has.
    """
    from ...models.packages import SHORT_NAMES

    for name in names:
        if name.lower() in SHORT_NAMES:
            return name
    raise InvalidArgument(f"bench embed: models are called {list(names)}, which no dense model is; name it by dense.")


def entries(found: Ground, progress: Progress) -> list[Entry]:
    """Everything that takes part, built and not yet tried; what cannot be built says why."""
    wanted = found.settings.engines
    made: list[Entry] = []
    if "zeroskip" in wanted:
        for path in found.settings.models:
            progress("preparing", len(made), len(wanted) + len(found.settings.models))
            made.append(_compiled(found, path))
    for name in wanted:
        progress("preparing", len(made), len(wanted) + len(found.settings.models))
        if name == "deepsparse":
            made += _deepsparse(found)
        elif name != "zeroskip":
            made.append(_rival(found, name, made))
    return made


def _text(opened: io.SavedModel) -> TextSettings:
    return TextSettings.from_json("bench embed", opened.manifest.text)


def _base(loaded: LoadedModel, tokenizer: Path) -> dict[str, Any]:
    """What every worker but ours is told."""
    write_text(tokenizer, loaded.tokenizer.backend_tokenizer.to_str())
    return {
        "tokenizer": str(tokenizer),
        "max_tokens": loaded.extra["max_seq_length"],
        "pad_id": loaded.tokenizer.pad_token_id or 0,
        "pooling": loaded.extra.get("pooling", "mean"),
        "normalize": bool(loaded.extra.get("normalize", False)),
    }


def _compiled(found: Ground, path: Path) -> Entry:
    """A compiled model, checked against torch on the weights that it holds."""
    model = runtime.load(path)
    name = path.name
    if not isinstance(model, CompiledModel) or model.features != found.reference.shape[1]:
        raise InvalidArgument(
            f"bench embed: {path} gives vectors of {model.features}, the dense model of {found.reference.shape[1]}; "
            "name the model that it came from by dense."
        )
    vectors = TorchEncoder(saved.with_saved_weights(found.dense.loaded, path)).embed(found.lines[:CHECK_LINES])
    expected = found.folder / f"expected-{name}.npy"
    np.save(expected, vectors)
    weights = sum(layer.shape[0] * layer.shape[1] for layer in model.plan)
    zeros = sum(layer.sparsity * layer.shape[0] * layer.shape[1] for layer in model.plan)
    how = f"compiled, {model.values} values" + "".join(f", x in {bits} bits" for bits in saved.rounded_bits(model))
    return Entry(
        key=f"zeroskip:{name}",
        label=f"zeroskip, {name}",
        engine="zeroskip",
        worker="zeroskip",
        values=model.values,
        model=name,
        sparsity=zeros / weights if weights else None,
        variants=(variant(how, {"folder": str(path.resolve())}, [path.resolve()]),),
        expected=str(expected),
        limit=saved.SAME_COSINE[saved.arithmetic(model)],
    )


def _rival(found: Ground, name: str, made: Sequence[Entry]) -> Entry:
    """The dense model in another engine, or an entry that says why not."""
    worker, _, precision = name.partition("-")
    entry = Entry(name, _LABELS[name], name, worker, sparsity=0.0, values=precision or "float32")
    absent = [package for package in _PACKAGES[name] if importlib.util.find_spec(package) is None]
    if absent:
        return entry.without("missing", f"not installed: pip install {' '.join(absent)}")
    try:
        variants = _variants(found, name, made)
    except Exception as error:  # converters raise anything: a row says so, and the others go on
        return entry.without("failed", f"building it failed: {type(error).__name__}: {error}")
    return replace(
        entry,
        variants=tuple(variants),
        expected="" if precision else str(found.folder / "reference.npy"),
        limit=SAME_INT8 if precision else EXACT,
    )


def _variants(found: Ground, name: str, made: Sequence[Entry]) -> list[Variant]:
    dense = found.dense
    if name == "torch":
        return artefacts.torch_variants(dense)
    plain = dense.folder / "dense.onnx"
    if name == "onnxruntime":
        return artefacts.onnx_variants(dense)
    if not plain.exists():
        artefacts.onnx_variants(dense)
    if name == "onnxruntime-int8":
        return artefacts.onnx_int8_variants(dense)
    if name == "openvino":
        return artefacts.openvino_variants(dense)
    if not (dense.folder / "dense.xml").exists():
        artefacts.openvino_variants(dense)
    return artefacts.openvino_int8_variants(dense)


def _deepsparse(found: Ground) -> list[Entry]:
    """DeepSparse on the dense model and on the weights of each sparse one: it is made for these."""
    python = found.settings.deepsparse_python
    entry = Entry("deepsparse", _LABELS["deepsparse"], "deepsparse", "deepsparse", sparsity=0.0, python=python)
    if python is None:
        reason = "needs an old Python environment of its own: pip install deepsparse==1.8.0 tokenizers in one of "
        return [entry.without("missing", reason + "Python 3.11 or older, and name its python")]
    jobs: list[tuple[Entry, LoadedModel, str]] = [
        (replace(entry, expected=str(found.folder / "reference.npy")), found.dense.loaded, "dense")
    ]
    for path in found.settings.models:
        model = saved.with_saved_weights(found.dense.loaded, path)
        zeros = _zeros(path)
        if zeros > 0.05:
            name = path.name
            expected = found.folder / f"expected-deepsparse-{name}.npy"
            np.save(expected, TorchEncoder(model).embed(found.lines[:CHECK_LINES]))
            labelled = replace(entry, key=f"deepsparse:{name}", label=f"DeepSparse, {name}", model=name)
            jobs.append((replace(labelled, sparsity=zeros, expected=str(expected)), model, f"pruned-{name}"))
    made = []
    for item, model, name in jobs:
        try:
            variants = tuple(artefacts.deepsparse_variants(found.dense, model, name))
            made.append(replace(item, variants=variants, limit=EXACT))
        except Exception as error:  # torch's exporter raises anything
            made.append(item.without("failed", f"building it failed: {type(error).__name__}: {error}"))
    return made


def _zeros(path: Path) -> float:
    """Share of zeros in the linear layers of a compiled model."""
    plan: Sequence[Mapping[str, Any]] = io.open_saved(path).manifest.plan
    sizes = [layer["shape"][0] * layer["shape"][1] for layer in plan]
    zeros = sum(size * layer["sparsity"] for size, layer in zip(sizes, plan, strict=True))
    return float(zeros / max(sum(sizes), 1))
