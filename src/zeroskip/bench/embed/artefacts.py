"""The dense model in the files of each rival: every way to run it that its documentation recommends."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from ..._errors import InvalidArgument
from ...models import LoadedModel
from .. import export
from .entries import Variant, variant
from .worker.padding import padded

Spec = Mapping[str, Any]
HINTS = {"LATENCY": "hint LATENCY", "THROUGHPUT": "hint THROUGHPUT, several batches at a time"}


@dataclass(frozen=True)
class Dense:
    """The dense model and what its rivals share.

    Args:
        loaded: The torch model.
        folder: Where files go.
        base: `tokenizer`, `max_tokens`, `pad_id`, `pooling`, `normalize`: what every worker but ours is told.
        calibration: Lines for int8 models that want some.
    """

    loaded: LoadedModel
    folder: Path
    base: Spec
    calibration: Sequence[str]

    @property
    def tokenizer(self) -> Path:
        """The tokenizer's file."""
        return Path(self.base["tokenizer"])


def torch_variants(dense: Dense) -> list[Variant]:
    """The Hugging Face model, saved so that a worker can load it alone."""
    folder = dense.folder / "torch"
    dense.loaded.model.save_pretrained(folder)
    return [variant("eager, scaled dot product attention", {**dense.base, "folder": str(folder)}, [folder])]


def onnx_variants(dense: Dense) -> list[Variant]:
    """The exported graph, and the same with fused attention."""
    plain, fused = dense.folder / "dense.onnx", dense.folder / "dense-fused.onnx"
    export.export(dense.loaded, plain)
    found = [_onnx(dense, plain, "graph optimisations of the session")]
    # The tool raises anything on a graph that it does not know: the plain one stays.
    with contextlib.suppress(Exception):
        export.fuse(plain, fused, dense.loaded.model.config)
        found.append(_onnx(dense, fused, "graph optimisations of the session, and fused attention"))
    return found


def onnx_int8_variants(dense: Dense) -> list[Variant]:
    """Dynamic int8 by ONNX Runtime's own tool: both graphs, signed and unsigned weights, a scale a tensor or a column.

    Without VNNI, products of unsigned x and signed weights can overflow 16 bits: hence 7 bits, or unsigned weights.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    kinds = {"8 bits": (QuantType.QInt8, False), "7 bits": (QuantType.QInt8, True), "u8": (QuantType.QUInt8, False)}
    found = []
    for source, graph in ((dense.folder / "dense.onnx", "plain"), (dense.folder / "dense-fused.onnx", "fused")):
        for (kind, (weight_type, reduced)), scale in product(kinds.items(), ("column", "tensor")):
            target = dense.folder / f"int8-{graph}-{kind.replace(' ', '-')}-{scale}.onnx"
            # The tool raises anything on operators that it cannot store so; the other ways stay.
            with silence(), contextlib.suppress(Exception):
                quantize_dynamic(
                    source, target, weight_type=weight_type, reduce_range=reduced, per_channel=scale == "column"
                )
                found.append(_onnx(dense, target, f"dynamic int8, {graph} graph, weights {kind}, a scale a {scale}"))
    if not found:
        raise InvalidArgument("bench embed: quantize_dynamic stored no graph; see whether onnxruntime and onnx agree.")
    return found


def openvino_variants(dense: Dense) -> list[Variant]:
    """The exported graph in OpenVINO's format, under both performance hints."""
    import openvino

    target = dense.folder / "dense.xml"
    with silence():
        model = openvino.convert_model(str(dense.folder / "dense.onnx"))
        openvino.save_model(model, str(target), compress_to_fp16=False)
    return _openvino(dense, target, "float32", {"precision": "f32"})


def openvino_int8_variants(dense: Dense) -> list[Variant]:
    """Weights and activations in int8 by NNCF, calibrated; weights alone where NNCF is missing or fails."""
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    target = dense.folder / "int8.xml"
    source = openvino.Core().read_model(str(dense.folder / "dense.xml"))
    feeds = list(_feeds(dense))
    with silence():
        try:
            made = nncf.quantize(
                source, nncf.Dataset(feeds), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(feeds)
            )
            how = f"NNCF, calibrated on {len(feeds)} lines"
        except Exception as error:  # NNCF raises anything; weights alone need no calibration
            again = openvino.Core().read_model(str(dense.folder / "dense.xml"))
            made = nncf.compress_weights(again, mode=nncf.CompressWeightsMode.INT8_ASYM)
            how = f"weights alone in int8 (NNCF's quantisation failed: {type(error).__name__})"
        openvino.save_model(made, str(target), compress_to_fp16=False)
    return _openvino(dense, target, how, {})


def deepsparse_variants(dense: Dense, model: LoadedModel, name: str) -> list[Variant]:
    """An exported graph with the weights of a model, dense or pruned."""
    target = dense.folder / f"{name}.onnx"
    if not target.exists():
        export.export(model, target)
    return [_onnx(dense, target, "fixed shapes, an engine for each of some lengths")]


def _onnx(dense: Dense, path: Path, how: str) -> Variant:
    return variant(how, {**dense.base, "file": str(path)}, [path, dense.tokenizer])


def _openvino(dense: Dense, path: Path, how: str, extra: Spec) -> list[Variant]:
    files = [path, path.with_suffix(".bin"), dense.tokenizer]
    spec = {**dense.base, "file": str(path), **extra}
    return [variant(f"{how}, {words}", {**spec, "hint": hint}, files) for hint, words in HINTS.items()]


def _feeds(dense: Dense) -> Iterator[dict[str, Any]]:
    """Inputs of one calibration line each."""
    limit = int(dense.base["max_tokens"])
    for row in dense.loaded.tokenizer(list(dense.calibration), truncation=True, max_length=limit)["input_ids"]:
        ids, mask = padded([row], int(dense.base["pad_id"]))
        yield {"input_ids": ids, "attention_mask": mask}


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Converters print their progress; what goes wrong they raise."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        root.setLevel(before)
