"""What each layer is pruned to, where `prune` is given a sparsity for all or a mapping of layers to sparsities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from .._errors import InvalidArgument
from ..sparsify import Pattern
from .walk import LinearLayer, matching

Sparsities: TypeAlias = "float | Mapping[str, float | str] | None"


@dataclass(frozen=True)
class Target:
    """The sparsity and the pattern of one layer."""

    sparsity: float
    pattern: Pattern


def targets_of(
    sparsity: float | Mapping[str, float | str], pattern: Pattern, layers: Sequence[LinearLayer]
) -> dict[str, Target]:
    """The target of each layer that is to be pruned, by name.

    Args:
        sparsity: Of all layers, or by name or glob pattern: a sparsity, with `pattern`, or an N:M pattern of its own.
            The first entry that matches a layer counts; 0 leaves a layer as it is.
        pattern: Of whatever has no own.
        layers: Those that may be pruned.
    Raises:
        InvalidArgument: If a value is neither, a key matches no layer, or nothing is left to prune.
    """
    if not isinstance(sparsity, Mapping):
        return {layer.name: Target(sparsity, pattern) for layer in layers}
    found: dict[str, Target | None] = {}
    for key, value in sparsity.items():
        if not isinstance(key, str):
            raise InvalidArgument(f"prune: sparsity has the key {key!r}; pass names or glob patterns of layers.")
        target = _target(key, value, pattern)
        for layer in matching(layers, key, argument="sparsity"):
            found.setdefault(layer.name, target)
    targets = {name: target for name, target in found.items() if target is not None}
    if not targets:
        raise InvalidArgument("prune: sparsity leaves every layer as it is; give one layer at least more than 0.")
    return targets


def _target(key: str, value: float | str, pattern: Pattern) -> Target | None:
    """None where the layers stay as they are."""
    where = f"prune: sparsity[{key!r}]"
    if isinstance(value, str):
        own = Pattern.parse(value)
        if own.kind == "unstructured":
            raise InvalidArgument(f"{where} is {value!r}, which says not how sparse; pass a number in [0, 1).")
        return Target(own.sparsity_or_default(None), own)
    if value == 0 and not isinstance(value, bool):
        return None
    return Target(pattern.sparsity_or_default(value, where=where), pattern)
