"""Hugging Face and torch models: load them, find their linear layers, prune them, save them. Imports no torch by
itself."""

from __future__ import annotations

from .distillation.distill import distill
from .families import FAMILIES, Family, family_of, supported
from .loading import LoadedModel, load
from .pruning import prune
from .report import DistillReport, LayerReport, PruneReport
from .saving import save_pruned
from .walk import Block, LinearLayer, base_of, blocks, family_of_model, prunable

__all__ = [
    "FAMILIES",
    "Block",
    "DistillReport",
    "Family",
    "LayerReport",
    "LinearLayer",
    "LoadedModel",
    "PruneReport",
    "base_of",
    "blocks",
    "distill",
    "family_of",
    "family_of_model",
    "load",
    "prunable",
    "prune",
    "save_pruned",
    "supported",
]
