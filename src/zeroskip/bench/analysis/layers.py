"""The shapes of a model's linear layers, each once, with how many layers have it and what share of the work that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..._errors import InvalidArgument

_MOST_ELEMS = 2**31


@dataclass(frozen=True)
class LayerShape:
    """One shape.

    Attributes:
        layers: How many layers have it.
        share: Their share of the multiplications of all layers, at any one N.
        example: The name of one of them; None without a model.
    """

    shape: tuple[int, int]
    layers: int = 1
    share: float = 1.0
    example: str | None = None

    def as_json(self) -> dict[str, Any]:
        rows, columns = self.shape
        return {"m": rows, "k": columns, "layers": self.layers, "share": self.share, "example": self.example}


@dataclass(frozen=True)
class Layers:
    """What is to be analysed: shapes, the most work first, and the model they are from."""

    shapes: tuple[LayerShape, ...]
    model: dict[str, Any] | None = None


def shapes_of(shapes: Sequence[tuple[int, int]]) -> Layers:
    """Shapes as they were given, each once.

    Raises:
        InvalidArgument: If there is none, or one is no shape.
    """
    given = list(dict.fromkeys((int(rows), int(columns)) for rows, columns in shapes))
    if not given or any(rows < 1 or columns < 1 or rows * columns >= _MOST_ELEMS for rows, columns in given):
        raise InvalidArgument(
            f"analyze: shapes is {shapes!r}, each is (M, K) with fewer than 2^31 elements; pass for example "
            "[(4096, 4096)]."
        )
    total = sum(rows * columns for rows, columns in given)
    return Layers(tuple(LayerShape(shape, share=shape[0] * shape[1] / total) for shape in given))


def layers_of(model: Any) -> Layers:
    """The shapes of the linear layers that pruning touches."""
    from ... import models

    loaded = models.load(model)
    named: dict[tuple[int, int], list[str]] = {}
    for layer in models.prunable(loaded.model):
        named.setdefault(layer.shape, []).append(layer.name)
    total = sum(shape[0] * shape[1] * len(names) for shape, names in named.items())
    found = [
        LayerShape(shape, len(names), shape[0] * shape[1] * len(names) / total, names[0])
        for shape, names in named.items()
    ]
    found.sort(key=lambda item: -item.share)
    about = {"name": loaded.name, "kind": loaded.kind, "family": loaded.family, "layers": sum(i.layers for i in found)}
    return Layers(tuple(found), about)
