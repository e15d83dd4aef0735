"""The dense model in the files of each rival, made by the rival's own tools as its documentation recommends."""

from __future__ import annotations

import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..._errors import InvalidArgument
from ...models import LoadedModel
from ..embed.artefacts import silence

GROUP = 32
_BUILDER = {"float32": "fp32", "int8": "int8", "int4": "int4"}
# llama.cpp's file types: what is meant by all tensors of two dimensions being of a type.
_GGUF_TYPES = {"float16": 1, "int8": 7, "int4": 2}


def save_torch(loaded: LoadedModel, folder: Path, dtype: str) -> Path:
    """The Hugging Face model in a value type, with its tokenizer."""
    import copy

    import torch

    model = copy.deepcopy(loaded.model).to(getattr(torch, dtype))
    model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def cache_sizes(loaded: LoadedModel) -> tuple[int, int]:
    """Heads of keys and values, and the width of one."""
    config = loaded.model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_key_value_heads), int(width)


def build_onnx(source: Path, folder: Path, values: str) -> tuple[Path, Path]:
    """Two graphs of ONNX Runtime's model builder: logits of the last token alone, and of all.

    Keys and values share a buffer, int8 and int4 weights have a scale for 32 columns, and x is rounded to 8 bits.

    Args:
        source: A Hugging Face folder in float32.
        folder: Where they go.
        values: float32, int8 or int4.
    Raises:
        InvalidArgument: If the builder fails; with its last line.
    """
    made = []
    for name, last in (("last", "true"), ("whole", "false")):
        options = [f"prune_lm_head={last}"]
        if values != "float32":
            options += ["accuracy_level=4", f"block_size={GROUP}"]
        command = [
            sys.executable,
            "-m",
            "onnxruntime_genai.models.builder",
            "-i",
            str(source),
            "-o",
            str(folder / name),
        ]
        command += ["-p", _BUILDER[values], "-e", "cpu", "--extra_options", *options]
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run([*command, "-c", cache], capture_output=True, text=True, check=False)
        if done.returncode:
            last_line = (done.stderr.strip().splitlines() or ["no word"])[-1]
            raise InvalidArgument(f"bench model: ONNX Runtime's builder: {last_line}")
        made.append(folder / name / "model.onnx")
    return made[0], made[1]


def convert_openvino(loaded: LoadedModel, path: Path) -> Path:
    """An OpenVINO model whose keys and values are state, with logits at the places that are asked for.

    Inputs: input_ids, attention_mask, position_ids (sequences, tokens), take (places in the tokens), beam_idx.
    """
    import copy
    import warnings

    import openvino
    import torch
    from transformers.cache_utils import DynamicCache, DynamicLayer

    layers = loaded.model.config.num_hidden_layers
    heads, width = cache_sizes(loaded)
    make_layer: Any = DynamicLayer

    class Step(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, take: Any, *past: Any) -> Any:
            cache = DynamicCache()
            for place in range(layers):
                layer: Any = make_layer()
                layer.lazy_initialization(past[2 * place], past[2 * place + 1])
                layer.keys, layer.values = past[2 * place], past[2 * place + 1]  # nothing empty to be joined to
                cache.layers.append(layer)
            seen = torch.arange(attention_mask.shape[1])[None, None, None] <= position_ids[:, None, :, None]
            made = self.model.model(
                input_ids=input_ids,
                attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min),
                position_ids=position_ids,
                past_key_values=cache,
                use_cache=True,
            )
            logits = self.model.lm_head(made.last_hidden_state[:, take])
            after: Sequence[Any] = cache.layers
            return (logits, *(state for layer in after for state in (layer.keys, layer.values)))

    model = Step(copy.deepcopy(loaded.model).eval())
    ids = torch.ones((2, 3), dtype=torch.int64)
    past = [torch.zeros((2, heads, 5, width)) for _ in range(2 * layers)]
    example = (ids, torch.ones((2, 8), dtype=torch.int64), ids.cumsum(1) + 4, torch.tensor([0, 2]), *past)
    with silence(), warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        made = openvino.convert_model(model, example_input=example)
    _name(made, layers, heads, width)
    _keep_states(made, layers)
    openvino.save_model(made, str(path), compress_to_fp16=False)
    return path


def _name(made: Any, layers: int, heads: int, width: int) -> None:
    """Names and free sizes of what goes in and out."""
    import openvino

    states = [f"{kind}.{place}" for place in range(layers) for kind in ("key", "value")]
    inputs = ["input_ids", "attention_mask", "position_ids", "take", *(f"past.{name}" for name in states)]
    for port, name in zip(made.inputs, inputs, strict=True):
        port.get_tensor().set_names({name})
        port.get_node().set_friendly_name(name)
        free = [-1] if name == "take" else [-1, heads, -1, width] if name.startswith("past.") else [-1, -1]
        port.get_node().set_partial_shape(openvino.PartialShape(free))
    for port, name in zip(made.outputs, ["logits", *(f"present.{name}" for name in states)], strict=True):
        port.get_tensor().set_names({name})
    made.validate_nodes_and_infer_types()


def _keep_states(made: Any, layers: int) -> None:
    """Turn pasts into state, picked by beam_idx as OpenVINO's own pipelines expect, empty at first."""
    import numpy as np
    import openvino
    from openvino import opset13 as ops
    from openvino._offline_transformations import apply_make_stateful_transformation

    beam = ops.parameter([-1], openvino.Type.i32, name="beam_idx")
    beam.output(0).get_tensor().set_names({"beam_idx"})
    made.add_parameters([beam])
    states = [f"{kind}.{place}" for place in range(layers) for kind in ("key", "value")]
    for port in [port for port in made.inputs if port.get_any_name().startswith("past.")]:
        targets = port.get_target_inputs()
        gathered = ops.gather(port, beam, ops.constant(np.int64(0)))
        for target in targets:
            target.replace_source_output(gathered.output(0))
    made.validate_nodes_and_infer_types()
    apply_make_stateful_transformation(made, {f"past.{name}": f"present.{name}" for name in states})
    sizes = ops.gather(ops.shape_of(made.input("input_ids"), output_type="i64"), ops.constant([0]), ops.constant(0))
    for node in made.get_ops():
        if node.get_type_name() == "ReadValue":
            shape = node.get_output_partial_shape(0)
            start = ops.broadcast(
                ops.constant(np.float32(0)),
                ops.concat(
                    [sizes, ops.constant(np.array([shape[1].get_length(), 0, shape[3].get_length()], np.int64))], 0
                ),
            )
            node.set_arguments([start.output(0)])
    made.validate_nodes_and_infer_types()


def compress_openvino(source: Path, path: Path, values: str) -> Path:
    """Weights in int8 (a scale a row), or in int4 for groups of 32 with the head in int8: NNCF's own defaults."""
    import nncf
    import openvino

    nncf.set_log_level(logging.ERROR)
    modes = nncf.CompressWeightsMode
    with silence():
        model = openvino.Core().read_model(str(source))
        if values == "int8":
            made = nncf.compress_weights(model, mode=modes.INT8_ASYM)
        else:
            made = nncf.compress_weights(model, mode=modes.INT4_ASYM, group_size=GROUP, ratio=1.0)
        openvino.save_model(made, str(path), compress_to_fp16=False)
    return path


def write_gguf(source: Path, path: Path, values: str) -> Path:
    """A GGUF file again in another type, by llama.cpp's own tool.

    Raises:
        InvalidArgument: If it fails.
    """
    import ctypes

    import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, ctypes.c_void_p(0))
    settings = llama_cpp.llama_model_quantize_default_params()
    settings.ftype = _GGUF_TYPES[values]
    settings.allow_requantize = True
    failed = llama_cpp.llama_model_quantize(str(source).encode(), str(path).encode(), ctypes.byref(settings))
    if failed:
        raise InvalidArgument(f"bench model: llama.cpp cannot write {source.name} in {values} ({failed}).")
    return path
