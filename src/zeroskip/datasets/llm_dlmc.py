"""LLM-DLMC: pruned weights with the shapes of today's models, patterns drawn as real masks of real models spread.

Shapes are those of the models' configurations (`shapes/*.toml`). For each method, role and sparsity the spread of
entries over rows and columns is the mean of what `benchmarks/llm_dlmc_fit.py` found in masks of models that are small
enough to prune (`shapes/profiles.json`); the page docs/data.md tells how far the drawn ones are from them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import resources
from typing import Any

from ._base import Entry, generator, registry
from ._files import Remote
from ._profile import Profile, draw
from ._shapes import Layer, Model, models
from .io.smtx import Structure

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
# Routers and heads are not pruned.
PRUNED_ROLES = ("qkv", "out", "up", "down")


@cache
def fitted() -> tuple[dict[str, Any], ...]:
    """What was fitted: model, method, level, role, layers, row_rho, col_rho, exact_rows; one each."""
    text = resources.files(__package__).joinpath("shapes").joinpath("profiles.json").read_text("utf-8")
    return tuple(json.loads(text)["profiles"])


def methods() -> list[str]:
    """The methods that masks were fitted of, in the order of the file."""
    return list(dict.fromkeys(one["method"] for one in fitted()))


def profile(
    method: str,
    role: str,
    level: float,
    *,
    without: str | None = None,
    among: Sequence[Mapping[str, Any]] | None = None,
) -> Profile:
    """The mean over models of what was fitted at the nearest sparsity.

    Args:
        method: One of `methods()`.
        role: One of `PRUNED_ROLES`.
        level: Sparsity; nearest counts 0.9 to 0.95 as far as 0.8 to 0.9.
        without: A model to leave out.
        among: What was fitted; `fitted()` where None.
    """
    every = fitted() if among is None else among
    of = [one for one in every if one["method"] == method and one["role"] == role and one["model"] != without]
    distance = {one["level"]: abs(math.log((1 - one["level"]) / (1 - level))) for one in of}
    nearest = min(distance, key=lambda at: (distance[at], at))
    near = [one for one in of if one["level"] == nearest]
    row, column = (sum(one[name] for one in near) / len(near) for name in ("row_rho", "col_rho"))
    return Profile(row, column, sum(one["exact_rows"] for one in near) * 2 > len(near))


def _load(layer: Layer, method: str, level: float, nnz: int, name: str, seed: int) -> Structure:
    shape = (layer.rows, layer.columns)
    return draw(shape, nnz, profile(method, layer.role, level), generator(name, seed))


@dataclass(frozen=True)
class LLMDLMC:
    """See the module; the seed draws patterns and values."""

    name: str = "llm-dlmc"
    title: str = "today's language, vision and diffusion models: exact shapes, patterns spread as in real masks"
    kind: str = "weights"
    licence: str = "CC0-1.0"
    source: str | None = None
    files: tuple[Remote, ...] = ()

    def why_not(self) -> str | None:
        """See `Dataset`."""
        return None

    def entries(self) -> list[Entry]:
        """See `Dataset`. Names are `model/method/level/layer`; a layer stands for all of its shape in the model."""
        return [
            self._entry(model, layer, method, level)
            for model in models()
            for method in methods()
            for level in LEVELS
            for layer in model.layers
            if layer.role in PRUNED_ROLES
        ]

    def _entry(self, model: Model, layer: Layer, method: str, level: float) -> Entry:
        name = f"{model.name}/{method}/{level}/{layer.name}"
        nnz = round((1 - level) * layer.rows * layer.columns)
        load = partial(_load, layer, method, level, nnz, name)
        shape = (layer.rows, layer.columns)
        return Entry(name, self.name, self.kind, load, model.name, method, level, shape, nnz)


registry.add("llm-dlmc", LLMDLMC())
