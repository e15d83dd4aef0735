"""The shapes of the linear layers of models, from `shapes/*.toml`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from .._errors import DamagedFile, InvalidArgument
from .._toml import loads

ROLES = ("qkv", "out", "up", "down", "router", "head")


@dataclass(frozen=True)
class Layer:
    """Linear layers of one shape.

    Args:
        name: As the model calls them.
        role: Of `ROLES`: queries, keys, values and what is between; what leads out of attention; into a feed-forward
            part; out of it; the choice of experts; classes or tokens.
        rows: Outputs, M.
        columns: Inputs, K.
        count: How many the model has.
    """

    name: str
    role: str
    rows: int
    columns: int
    count: int


@dataclass(frozen=True)
class Model:
    """The linear layers of a model.

    Args:
        name: Of its file, such as `llama3-8b`.
        title: One line.
        source: Where its configuration stands.
        parameters: Of the whole model, embeddings once.
        other_parameters: Those that are in no linear layer: embeddings, norms, biases, convolutions.
        layers: In the order of the model.
    """

    name: str
    title: str
    source: str
    parameters: int
    other_parameters: int
    layers: tuple[Layer, ...]


@cache
def models() -> tuple[Model, ...]:
    """Every model, sorted by name.

    Raises:
        MissingDependency: On Python 3.10 without `tomli`.
    """
    files = [file for file in resources.files(__package__).joinpath("shapes").iterdir() if file.name.endswith(".toml")]
    return tuple(parse(file.name.removesuffix(".toml"), file.read_text("utf-8")) for file in sorted(files, key=str))


def model(name: str) -> Model:
    """The model of this name.

    Raises:
        InvalidArgument: If there is none; names those there are.
    """
    found = {one.name: one for one in models()}
    if name not in found:
        raise InvalidArgument(f"shapes: model {name!r} is not known; choose one of: {', '.join(found)}.")
    return found[name]


def parse(name: str, text: str) -> Model:
    """The model that a file describes.

    Raises:
        DamagedFile: If a field is missing or wrong.
    """
    try:
        found: dict[str, Any] = loads(text)
        layers = tuple(Layer(**layer) for layer in found.pop("layer"))
        result = Model(name, layers=layers, **found)
        for layer in layers:
            if layer.role not in ROLES or min(layer.rows, layer.columns, layer.count) < 1:
                raise ValueError(f"layer {layer.name} has a role or a size that cannot be")
        if len({layer.name for layer in layers}) < len(layers):
            raise ValueError("two layers have one name")
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedFile(f"shapes: {name}.toml does not describe a model ({error}); mend it.") from None
    return result
