"""What the benchmarks of whole models share: their options, and the pruned copy of a model."""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from typing import Any

from zeroskip import models


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose --help shows the docstring of the script as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def speed_parser(description: str | None, *, model: str, sparsity: float) -> argparse.ArgumentParser:
    """The options of a speed benchmark: what is pruned, how it is compiled, how long it is measured."""
    found = parser(description)
    found.add_argument("--model", default=model)
    found.add_argument("--pruned", help="folder of the same model, pruned; else it is pruned here")
    found.add_argument("--sparsity", type=float, default=sparsity)
    found.add_argument("--pattern", default="unstructured", help="or 2:4, 8:16, ..., which --sparsity then follows")
    found.add_argument("--method", default="magnitude")
    found.add_argument("--optimize", default="balanced")
    found.add_argument("--values", default=None, help="value type of the compiled weights, int8 and int4 as well")
    found.add_argument("--group", type=int, default=None, help="columns that share a scale")
    found.add_argument("--activations", default=None, help="int8 or float32, with int8 and int4 weights")
    found.add_argument("--rounds", type=int, default=5)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--json", action="store_true")
    return found


def pruned_copy(
    dense: models.LoadedModel, *, method: str, sparsity: float | None, pattern: str = "unstructured"
) -> models.LoadedModel:
    """A copy of a model, pruned without refit."""
    pruned = replace(dense, model=copy.deepcopy(dense.model))
    models.prune(pruned, method=method, sparsity=sparsity, pattern=pattern, refit="none")
    return pruned


def compile_settings(options: argparse.Namespace) -> dict[str, Any]:
    """What `zeroskip.compile` is told of the options of `speed_parser`."""
    names = ("values", "group", "activations", "optimize", "threads")
    return {name: getattr(options, name) for name in names}


def dense_and_pruned(options: argparse.Namespace) -> tuple[models.LoadedModel, models.LoadedModel]:
    """The two models that the options of `speed_parser` name."""
    dense = models.load(options.model)
    if options.pruned:
        return dense, models.load(options.pruned)
    if options.pattern != "unstructured":
        kept, whole = (int(part) for part in options.pattern.split(":"))
        options.sparsity = 1 - kept / whole
    return dense, pruned_copy(dense, method=options.method, sparsity=options.sparsity, pattern=options.pattern)


def silent(stage: str, done: int, total: int) -> Any:
    """Progress for nobody."""
