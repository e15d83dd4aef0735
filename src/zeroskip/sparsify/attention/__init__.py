"""Masks of attention, one kind a file: from sizes (`registry`), or from queries and keys (`selectors`).

A mask is CSR of ones, BSR of blocks full of ones, or a rule (`ops.rules.Rule`) that needs no entries at all.
"""

from __future__ import annotations

from typing import Any

from ...formats import BSR
from ...ops.rules import Rule
from ._describe import describe
from ._grid import Grid, Mask
from ._method import MaskMethod, Selector, registry, ruled, selectors
from ._quality import recall
from ._rules import rule_mask, rule_nnz

__all__ = [
    "Grid",
    "Mask",
    "MaskMethod",
    "Rule",
    "Selector",
    "describe",
    "make",
    "recall",
    "registry",
    "rule",
    "rule_mask",
    "rule_nnz",
    "ruled",
    "select",
    "selectors",
]


def make(kind: str, queries: int, keys: int, **settings: Any) -> Mask:
    """A mask of a kind by its name: `make("window", 1024, 1024, sparsity=0.9)`; see `MaskMethod` and the kinds."""
    return registry.get(kind).make(queries, keys, **settings)


def rule(kind: str, queries: int, keys: int, **settings: Any) -> Rule:
    """The rule of a kind by its name: `rule("window", 65536, 65536, window=256)`; `ruled()` lists the kinds."""
    return registry.get(kind).rule(queries, keys, **settings)


def select(kind: str, q: Any, k: Any, **settings: Any) -> BSR | list[BSR]:
    """Blocks chosen by queries and keys: `select("pooled", q, k, block=64, keep=0.2)`; see `Selector` and the kinds."""
    return selectors.get(kind).select(q, k, **settings)
