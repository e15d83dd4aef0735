"""Measuring: a timer, the schema of a row, the runner of `zeroskip bench`, and the report of `zeroskip demo`."""

from __future__ import annotations

from typing import Any

_HOME = {
    "SpmmSettings": "spmm",
    "bench_spmm": "spmm",
    "check_row": "schema",
    "machine": "machine",
    "versions": "machine",
    "commit": "machine",
    "interleave": "timer",
}

__all__ = ["SpmmSettings", "bench_spmm", "check_row", "commit", "interleave", "machine", "versions"]


def __getattr__(name: str) -> Any:
    import importlib

    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
