"""Data that can be had without a network, or that lies where `ZEROSKIP_DATA_DIR` says."""

from __future__ import annotations

from .text import TextSource, calibration_source, calibration_texts, paragraphs, registry, wikitext2

__all__ = ["TextSource", "calibration_source", "calibration_texts", "paragraphs", "registry", "wikitext2"]
