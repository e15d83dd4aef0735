"""Suites of `zeroskip bench run`: TOML files that say which matrices meet which kernels."""

from __future__ import annotations

from ._suite import Set, Suite, built_in, load

__all__ = ["Set", "Suite", "built_in", "load"]
