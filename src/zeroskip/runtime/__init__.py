"""The compiled model: plan, execution, token generation.

Names are imported when they are first used: who loads a compiled model does not wait for what compiles one.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .compile import compile
    from .compiled import CompiledModel, Memory
    from .evaluate import Agreement, Perplexity, agreement, perplexity
    from .generate import Generation
    from .layerplan import Choice, LayerPlan
    from .load import load
    from .sampling import Sampling

__all__ = [
    "Agreement",
    "Choice",
    "CompiledModel",
    "Generation",
    "LayerPlan",
    "Memory",
    "Perplexity",
    "Sampling",
    "agreement",
    "compile",
    "load",
    "perplexity",
]

_HOMES = {
    "Agreement": "evaluate",
    "Choice": "layerplan",
    "CompiledModel": "compiled",
    "Generation": "generate",
    "LayerPlan": "layerplan",
    "Memory": "compiled",
    "Perplexity": "evaluate",
    "Sampling": "sampling",
    "agreement": "evaluate",
    "compile": "compile",
    "load": "load",
    "perplexity": "evaluate",
}


class _Package(ModuleType):
    """`compile` and `load` are functions here: the import of the modules of the same names must not hide them."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _HOMES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    try:  # a module of this package
        return importlib.import_module(f"{__name__}.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}.{name}":
            raise
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
