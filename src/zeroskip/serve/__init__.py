"""The HTTP server of embeddings: `create_app` makes the ASGI app, `run` serves it.

Importing this package loads nothing: the web framework comes with the first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .settings import Settings

if TYPE_CHECKING:
    from .app import create_app
    from .server import run

__all__ = ["Settings", "create_app", "run"]

_HOMES = {"create_app": "app", "run": "server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
