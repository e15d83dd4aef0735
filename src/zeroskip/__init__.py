"""zeroskip runs sparse neural networks.

Importing this package loads nothing but the exceptions: every other name is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ._errors import (
    DamagedFile,
    DtypeError,
    FormatError,
    InvalidArgument,
    KernelUnavailable,
    MissingDependency,
    ShapeError,
    UnsupportedModel,
    ZeroskipError,
)

if TYPE_CHECKING:
    from . import formats, kernels, ops, testing
    from .bench.analysis.runner import analyze
    from .models import distill, prune
    from .ops import plan
    from .runtime import CompiledModel
    from .runtime.compile import compile
    from .runtime.load import load

__version__ = "0.1.0"

_MODULES = frozenset(
    (
        "bench",
        "cli",
        "datasets",
        "formats",
        "io",
        "kernels",
        "models",
        "nn",
        "ops",
        "quantize",
        "runtime",
        "serve",
        "sparsify",
        "testing",
    )
)
_ATTRIBUTES = {
    "analyze": "bench.analysis",
    "distill": "models",
    "prune": "models",
    "compile": "runtime",
    "load": "runtime",
    "CompiledModel": "runtime",
    "plan": "ops",
}

__all__ = [
    "CompiledModel",
    "DamagedFile",
    "DtypeError",
    "FormatError",
    "InvalidArgument",
    "KernelUnavailable",
    "MissingDependency",
    "ShapeError",
    "UnsupportedModel",
    "ZeroskipError",
    "__version__",
    "analyze",
    "compile",
    "distill",
    "formats",
    "kernels",
    "load",
    "ops",
    "plan",
    "prune",
    "testing",
]


def __getattr__(name: str) -> Any:
    if name in _ATTRIBUTES:
        value = getattr(importlib.import_module(f"{__name__}.{_ATTRIBUTES[name]}"), name)
    elif name in _MODULES:
        try:
            value = importlib.import_module(f"{__name__}.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"{__name__}.{name}":
                raise
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
