"""The report of `zeroskip bench run`: the survey's figures from our rows, one page, and pictures."""

from __future__ import annotations

from .write import write

__all__ = ["write"]
