"""What a compiled model is checked against: torch on the weights that were saved, rounded where they are codes."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import io
from ..formats import INTEGERS
from ..models import LoadedModel
from ..runtime import CompiledModel
from ..runtime.layerplan import rounds_x_to


def as_saved(pruned: LoadedModel, folder: Path) -> LoadedModel:
    """The pruned model; where the compiled model of it in `folder` holds codes, with what these mean as weights.

    Rounding weights is a loss that the figures of quality show. A check that the kernels are right must not.
    """
    saved = io.open_saved(folder)
    codes = [name for name, stored in saved.manifest.linears.items() if stored.group is not None]
    if not codes:
        return pruned
    model = copy.deepcopy(pruned.model)
    for name in codes:
        _put(model.get_submodule(name), saved.matrix(name).to_dense())
    return replace(pruned, model=model)


def arithmetic(compiled: CompiledModel) -> str:
    """What limits the agreement of a compiled model with torch on its own weights.

    A value type; `int8` where a kernel rounds x to 8 bits. Other kernels of codes take what they mean, in a decoder
    rounded once more to float16; rough int4 weights leave twice float16's difference (SmolLM2), so bfloat16's limit.
    """
    if any(rounds_x_to(choice.kernel) == "int8" for layer in compiled.plan for choice in layer.choices):
        return "int8"
    return "bfloat16" if compiled.values in INTEGERS else compiled.values


def what(compiled: CompiledModel) -> str:
    """What a check compares, for the page."""
    rounded = f", rounded to {compiled.values}" if compiled.values in INTEGERS else ""
    x = "; the compiled one rounds x to 8 bits, too" if arithmetic(compiled) == "int8" else ""
    return f"compiled against torch, same pruned weights{rounded}{x}"


def _put(module: Any, weight: Any) -> None:
    """Give a linear layer a weight (out, in) of its own; a tied embedding keeps what it has."""
    import torch

    found = torch.from_numpy(weight)
    transposed = type(module).__name__ == "Conv1D"  # GPT-2's holds (in, out)
    module.weight = torch.nn.Parameter(found.T.contiguous() if transposed else found, requires_grad=False)
