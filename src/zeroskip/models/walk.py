"""Find the blocks of a model and the linear layers in them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from .._errors import InvalidArgument, UnsupportedModel
from .families import Family, family_of, supported

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True)
class LinearLayer:
    """A linear layer seen as `y = x @ W.T + b` with W (out_features, in_features), whatever way it stores W.

    Args:
        name: Its dotted name in the model.
        module: The `nn.Linear`, or Hugging Face's `Conv1D`.
        transposed: The module stores W.T.
    """

    name: str
    module: nn.Module
    transposed: bool = False

    @property
    def parameter(self) -> nn.Parameter:
        """The parameter itself, as stored."""
        parameter: nn.Parameter = self.module.weight  # type: ignore[assignment]
        return parameter

    @property
    def bias(self) -> nn.Parameter | None:
        bias: nn.Parameter | None = getattr(self.module, "bias", None)
        return bias

    @property
    def shape(self) -> tuple[int, int]:
        """(out_features, in_features)."""
        first, second = self.parameter.shape
        return (second, first) if self.transposed else (first, second)

    def weight(self) -> torch.Tensor:
        """W as float32 (out, in); a copy only where it must be."""
        stored = self.parameter.detach()
        return (stored.T if self.transposed else stored).float()

    def assign(self, weight: torch.Tensor) -> None:
        """Overwrite the values in place, so that whatever shares the parameter keeps sharing it."""
        import torch

        with torch.no_grad():
            self.parameter.copy_(weight.T if self.transposed else weight)


@dataclass(frozen=True)
class Block:
    """One block of a model: its module and its linear layers."""

    name: str
    module: nn.Module
    linears: tuple[LinearLayer, ...]


def base_of(model: Any) -> Any:
    """The model below its head, for a Hugging Face model; else the model."""
    base = getattr(model, "base_model", model)
    return base if base is not None else model


def family_of_model(model: Any) -> Family | None:
    """The family of a torch model, by its Hugging Face configuration and by its blocks being where they should; or
    None."""
    family = family_of(getattr(getattr(model, "config", None), "model_type", None))
    if family is None:
        return None
    try:
        operator.attrgetter(family.blocks)(base_of(model))
    except AttributeError:
        return None
    return family


def as_linear(name: str, module: nn.Module) -> LinearLayer | None:
    """`module` as a LinearLayer, or None where it is no linear layer."""
    from torch import nn

    if isinstance(module, nn.Linear):
        return LinearLayer(name, module)
    # By name, so that transformers is not imported for a plain torch model.
    if type(module).__name__ == "Conv1D" and type(module).__module__.startswith("transformers."):
        return LinearLayer(name, module, transposed=True)
    return None


def linears(model: nn.Module, prefix: str = "") -> list[LinearLayer]:
    """Every linear layer below `model`, in the order of `named_modules`."""
    found = (as_linear(f"{prefix}.{name}".strip("."), module) for name, module in model.named_modules())
    return [layer for layer in found if layer is not None]


def blocks(model: Any) -> list[Block]:
    """The blocks of a model of a known family, in order; none for any other model."""
    family = family_of_model(model)
    if family is None:
        return []
    listing = operator.attrgetter(family.blocks)(base_of(model))
    names = {id(module): name for name, module in model.named_modules()}
    found = []
    for index, module in enumerate(listing):
        name = names.get(id(module), f"{family.blocks}.{index}")
        found.append(Block(name, module, tuple(linears(module, name))))
    return found


def prunable(
    model: Any, include: Sequence[str] | str | None = None, exclude: Sequence[str] | str | None = None
) -> list[LinearLayer]:
    """The linear layers that pruning touches, each with its (out, in) view.

    Args:
        model: A torch or Hugging Face model.
        include: Glob patterns of full names, `*.mlp.*`; a part of a dotted name will do. None: the linear layers of the
            blocks (of a model of unknown family: all but an output head that Hugging Face names).
        exclude: The same, taken away at the end.
    Returns:
        The layers, in order. A layer whose weight is an embedding's is never among them unless `include` names it.
    Raises:
        UnsupportedModel: If the model has no linear layer at all.
        InvalidArgument: If a pattern matches none, nothing is left, or `include` asks for a weight tied to an
            embedding.
    """
    everything = linears(model)
    if not everything:
        raise UnsupportedModel(
            f"prune: {type(model).__name__} has no nn.Linear layer; zeroskip prunes models of the families "
            f"{supported()}, "
            "and any torch model with nn.Linear layers."
        )
    tied = _embedding_weights(model)
    chosen = _default_layers(model, everything, tied)
    if include is not None:
        chosen = matching(everything, include, argument="include")
        shared = [layer.name for layer in chosen if id(layer.parameter) in tied]
        if shared:
            raise InvalidArgument(
                f"prune: include names {shared[0]!r}, whose weight is tied to an embedding; embeddings stay dense, "
                "leave it out."
            )
    if exclude is not None:
        gone = {layer.name for layer in matching(everything, exclude, argument="exclude")}
        chosen = [layer for layer in chosen if layer.name not in gone]
    if not chosen:
        raise InvalidArgument("prune: include and exclude leave no layer; widen include or narrow exclude.")
    return chosen


def _default_layers(model: Any, everything: list[LinearLayer], tied: set[int]) -> list[LinearLayer]:
    in_blocks = [layer for block in blocks(model) for layer in block.linears]
    if in_blocks:
        return in_blocks
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    return [layer for layer in everything if layer.module is not head and id(layer.parameter) not in tied]


def _embedding_weights(model: Any) -> set[int]:
    from torch import nn

    return {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}


def matching(layers: Sequence[LinearLayer], patterns: Sequence[str] | str, *, argument: str) -> list[LinearLayer]:
    """The layers that any of `patterns` matches, each pattern matching at least one."""
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in wanted:
        if not any(_matches(layer.name, pattern) for layer in layers):
            known = ", ".join(layer.name for layer in layers[:8]) + (", ..." if len(layers) > 8 else "")
            raise InvalidArgument(
                f"prune: {argument} is {pattern!r}, which matches no linear layer; there are: {known}."
            )
    return [layer for layer in layers if any(_matches(layer.name, pattern) for pattern in wanted)]


def _matches(name: str, pattern: str) -> bool:
    """A glob over the whole name, or plain dotted parts of it (`attention` is in `layer.0.attention.self`)."""
    return fnmatchcase(name, pattern) or f".{pattern.strip('.')}." in f".{name}."
