"""A smaller model of the same family: the blocks that change their input least are dropped.

The influence of a block is 1 minus the mean cosine between what enters and what leaves it (ShortGPT, Men et al. 2024).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument, UnsupportedModel
from ...models import LoadedModel


def influences(loaded: LoadedModel, windows: Sequence[npt.NDArray[np.int64]]) -> list[float]:
    """The influence of each block, over the tokens of some windows.

    Args:
        loaded: A decoder.
        windows: Token ids (T,) each.
    Raises:
        UnsupportedModel: If the model does not give its hidden states.
    """
    import torch

    sums = np.zeros(len(_blocks(loaded.model)[1]))
    for row in windows:
        with torch.inference_mode():
            states = loaded.model(input_ids=torch.from_numpy(row)[None], output_hidden_states=True).hidden_states
        # The last state is normalised already: the last block is compared all the same, and is never a candidate.
        for place in range(len(sums)):
            cosine = torch.nn.functional.cosine_similarity(states[place][0], states[place + 1][0], dim=-1)
            sums[place] += 1 - float(cosine.mean())
    return [float(value) for value in sums / len(windows)]


def without_blocks(loaded: LoadedModel, keep: int, found: Sequence[float]) -> LoadedModel:
    """A copy that keeps `keep` blocks: the first, the last and those of the largest influence, in their order.

    Raises:
        InvalidArgument: If it does not have more than `keep`, or fewer than two would stay.
    """
    import torch

    if not 2 <= keep < len(found):
        raise InvalidArgument(f"bench model: depth has {keep}; {loaded.name} has {len(found)} blocks, keep 2 to fewer.")
    inner = sorted(range(1, len(found) - 1), key=lambda place: -found[place])[: keep - 2]
    kept = [0, *sorted(inner), len(found) - 1]
    model = copy.deepcopy(loaded.model)
    owner, blocks = _blocks(model)
    owner.layers = torch.nn.ModuleList([blocks[place] for place in kept])
    for place, block in enumerate(owner.layers):
        block.self_attn.layer_idx = place
    model.config.num_hidden_layers = keep
    if getattr(model.config, "layer_types", None):
        model.config.layer_types = [model.config.layer_types[place] for place in kept]
    return replace(loaded, model=model, name=f"{loaded.name}, {keep} of {len(found)} blocks")


def _blocks(model: Any) -> tuple[Any, Any]:
    """The module that owns the blocks, and the blocks."""
    owner = getattr(model, "model", None)
    blocks = getattr(owner, "layers", None)
    if blocks is None or not all(hasattr(block, "self_attn") for block in blocks):
        raise UnsupportedModel(f"bench model: {type(model).__name__} has no model.layers to drop; leave out depth.")
    return owner, blocks
