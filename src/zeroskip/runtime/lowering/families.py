"""Which file lowers which architecture."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..._errors import UnsupportedModel
from .builder import Builder, Lowered

if TYPE_CHECKING:
    import torch

# config.model_type -> (file, kind)
FAMILIES: dict[str, tuple[str, str]] = {
    "bert": ("bert", "encoder"),
    "roberta": ("bert", "encoder"),
    "xlm-roberta": ("bert", "encoder"),
    "camembert": ("bert", "encoder"),
    "mpnet": ("mpnet", "encoder"),
    "distilbert": ("distilbert", "encoder"),
    "llama": ("llama", "decoder"),
    "qwen2": ("llama", "decoder"),
    "qwen3": ("llama", "decoder"),
    "gpt2": ("gpt2", "decoder"),
    "opt": ("opt", "decoder"),
}


def lower(model: torch.nn.Module) -> Lowered:
    """A Hugging Face model as a graph with its tensors and weight matrices.

    Encoders give `hidden`, their last hidden state; a head on top (pooler, classifier) is left out. Decoders give
    `hidden` (after the final norm), and where the model has a language head `logits` of all tokens and `last_logits`
    of each sequence's last. Weights are not copied where they are float32 already.

    Raises:
        UnsupportedModel: If the architecture is not known, or uses something that is not; names it.
    """
    kind = _type_of(model)
    if kind not in FAMILIES:
        raise UnsupportedModel(
            f"lower: model_type is {kind!r}, it must be one of {', '.join(FAMILIES)}; other models run on torch."
        )
    file, role = FAMILIES[kind]
    walk: Callable[[Builder, Any], None] = importlib.import_module(f".{file}", __package__).lower
    builder = Builder(model, where=f"lower: {kind}", kind=role)
    walk(builder, _base(model))
    return builder.finish()


def can_lower(model: Any) -> bool:
    """Whether `lower` knows the architecture. Settings that it does not know are found by `lower` alone."""
    return _type_of(model) in FAMILIES


def _type_of(model: Any) -> Any:
    return getattr(getattr(model, "config", None), "model_type", None)


def _base(model: Any) -> Any:
    """The model below its head."""
    return getattr(model, getattr(model, "base_model_prefix", "") or "", model)
