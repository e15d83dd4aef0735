"""The texts of a demo: what is measured is never what the model was calibrated with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..._errors import InvalidArgument
from ...datasets import calibration_source
from ...datasets.text import paragraphs

DEFAULT = "pydoc"
PROMPTS = (
    "The list type in Python is",
    "Once upon a time, in a small village by the sea,",
    "The three most important things about writing tests are",
)


@dataclass(frozen=True)
class Texts:
    """Texts to calibrate with and to measure on.

    Args:
        calibration: Paragraphs.
        evaluation: Paragraphs.
        note: Where both come from, in words.
    """

    calibration: list[str]
    evaluation: list[str]
    note: str


def demo_texts(calibration: str | None, evaluation: str | None, *, count: int) -> Texts:
    """Choose the texts.

    Args:
        calibration: A file or a known name; None for the documentation inside this Python.
        evaluation: The same. Where both are one text, its even paragraphs calibrate and its odd ones are measured.
        count: How many paragraphs to measure on, spread over the text.
    """
    first, second = calibration or DEFAULT, evaluation or calibration or DEFAULT
    text, name = calibration_source(first)
    if first == second:
        lines = _enough(list(dict.fromkeys(paragraphs(text))), 4, name)  # what is there twice would be on both sides
        given = ", as no text was given" if calibration is None else ""
        note = f"{name}{given}: even paragraphs calibrate, odd ones are measured"
        return Texts(lines[::2], spread(lines[1::2], count), note)
    other, other_name = calibration_source(second)
    lines = _enough(paragraphs(text), 2, name)
    known = set(lines)
    measured = [line for line in _enough(paragraphs(other), 2, other_name) if line not in known]
    return Texts(lines, spread(measured, count), f"calibrated with {name}, measured on {other_name}")


def spread(lines: Sequence[str], count: int) -> list[str]:
    """`count` lines at even distances, or all where there are fewer."""
    if len(lines) <= count:
        return list(lines)
    return [lines[place * len(lines) // count] for place in range(count)]


def _enough(lines: list[str], least: int, name: str) -> list[str]:
    if len(lines) < least:
        raise InvalidArgument(f"demo: {name} has {len(lines)} paragraphs, the demo needs {least}; pass a longer text.")
    return lines
