"""Rival libraries behind the kernel interface: one file each. A library is imported when a matrix is prepared."""

import importlib
import pkgutil

from .._base import registry
from .._plugins import discover

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        try:
            importlib.import_module(f"{__name__}.{_module.name}")
        except ImportError as error:
            registry.unavailable[_module.name] = str(error)

discover()
