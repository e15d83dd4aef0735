"""Pruning methods: tensors in, masks (or new weights) out. Knows no model; `zeroskip.models` walks models with them."""

from __future__ import annotations

from .gradual import GradualPruner, MaskKeeper, cubic_sparsity
from .mask import check_pattern, mask_from_scores
from .pattern import Pattern
from .pruner import InputStats, Pruned, Pruner, registry, resolve_scope

__all__ = [
    "GradualPruner",
    "InputStats",
    "MaskKeeper",
    "Pattern",
    "Pruned",
    "Pruner",
    "check_pattern",
    "cubic_sparsity",
    "mask_from_scores",
    "registry",
    "resolve_scope",
]
