"""TOML, which Python reads by itself from 3.11 on."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from ._errors import MissingDependency


def loads(text: str) -> dict[str, Any]:
    """The tables of a document.

    Raises:
        ValueError: If it is no TOML; says where.
        MissingDependency: On Python 3.10 without `tomli`.
    """
    name = "tomllib" if sys.version_info >= (3, 11) else "tomli"
    try:
        toml = importlib.import_module(name)
    except ImportError:
        raise MissingDependency("Python 3.10 reads TOML with tomli; pip install tomli.") from None
    found: dict[str, Any] = toml.loads(text)
    return found
