"""Data sets of sparse matrices, and texts: generated, or read from the folder that `ZEROSKIP_DATA_DIR` names."""

from __future__ import annotations

from ._base import (
    KINDS,
    Dataset,
    Entry,
    FileSet,
    drawn_values,
    find,
    generator,
    provenance,
    registry,
    with_drawn_values,
)
from ._features import features
from ._files import Remote
from .text import TextSource, calibration_source, calibration_texts, paragraphs, texts, wikitext2

__all__ = [
    "KINDS",
    "Dataset",
    "Entry",
    "FileSet",
    "Remote",
    "TextSource",
    "calibration_source",
    "calibration_texts",
    "drawn_values",
    "features",
    "find",
    "generator",
    "paragraphs",
    "provenance",
    "registry",
    "texts",
    "wikitext2",
    "with_drawn_values",
]
