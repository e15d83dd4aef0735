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

# A compiled model differs from torch on the same weights by rounding only; float32 stays far below this, 16 bits close.
# Where x is rounded to 8 bits, MiniLM at 8:16 has 0.997.
SAME_COSINE = {"float32": 1 - 1e-5, "float16": 1 - 1e-4, "bfloat16": 1 - 2e-3, "int8": 0.99}


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


def with_saved_weights(dense: LoadedModel, folder: Path) -> LoadedModel:
    """The dense model with what the compiled model in `folder` holds as weights, however it was pruned or trained.

    Tensors that the compiled model holds under a name of its own stay as they are in the dense model.

    Args:
        dense: The model that it came from; it is not changed.
        folder: The compiled model.
    """
    import torch

    saved = io.open_saved(folder)
    model = copy.deepcopy(dense.model)
    known = dict(model.named_parameters())
    with torch.no_grad():
        for name in saved.tensors.names():
            found = known.get(name)
            if found is not None and name not in saved.manifest.linears:
                found.copy_(_float32(saved.dense(name)))
    for name in saved.manifest.linears:
        _put(model.get_submodule(name), saved.matrix(name).to_dense())
    return replace(dense, model=model)


def _float32(array: Any) -> Any:
    """A stored tensor as torch has it; bfloat16 comes as 16-bit numbers."""
    import numpy as np
    import torch

    if array.dtype == np.uint16:
        return torch.from_numpy((array.astype(np.uint32) << 16).view(np.float32))
    return torch.from_numpy(array.astype(np.float32))


def arithmetic(compiled: CompiledModel) -> str:
    """What limits the agreement of a compiled model with torch on its own weights.

    A value type; `int8` where a kernel rounds x to 8 bits. Other kernels of codes take what they mean, in a decoder
    rounded once more to float16; rough int4 weights leave twice float16's difference (SmolLM2), so bfloat16's limit.
    Fixed point of 16 bits rounds products more coarsely than float16 does values, so it has that limit, too.
    """
    bits = rounded_bits(compiled)
    if 8 in bits:
        return "int8"
    return "bfloat16" if bits or compiled.values in INTEGERS else compiled.values


def rounded_bits(compiled: CompiledModel) -> list[int]:
    """The bits that kernels of a model round x to with a scale a token: of 8 and 16."""
    found = {rounds_x_to(choice.kernel) for layer in compiled.plan for choice in layer.choices}
    return [bits for bits in (8, 16) if f"int{bits}" in found]


def what(compiled: CompiledModel) -> str:
    """What a check compares, for the page."""
    rounded = f", rounded to {compiled.values}" if compiled.values in INTEGERS else ""
    x = "".join(f"; the compiled one rounds x to {bits} bits, too" for bits in rounded_bits(compiled))
    return f"compiled against torch, same pruned weights{rounded}{x}"


def _put(module: Any, weight: Any) -> None:
    """Give a linear layer a weight (out, in) of its own; a tied embedding keeps what it has."""
    import torch

    found = torch.from_numpy(weight.copy())  # of its own: a mapped file cannot be written
    transposed = type(module).__name__ == "Conv1D"  # GPT-2's holds (in, out)
    module.weight = torch.nn.Parameter(found.T.contiguous() if transposed else found, requires_grad=False)
