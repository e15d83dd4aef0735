"""The lines that are embedded, and one sentence of an exact number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ..._errors import InvalidArgument
from ...datasets import calibration_source, paragraphs, texts, wikitext2

Encode = Callable[[str], int]


def measured_lines(text: str, count: int) -> list[str]:
    """The first `count` lines of a text: paragraphs of a known one, the lines of a file as they are.

    Raises:
        InvalidArgument: If it cannot be read, or has fewer than three lines.
    """
    found = _lines(text, "test")
    if len(found) < 3:
        raise InvalidArgument(f"bench embed: {text} has {len(found)} lines of text, it needs 3; pass a longer one.")
    return found[:count]


def calibration_lines(text: str, measured: Sequence[str], count: int) -> list[str]:
    """Lines to calibrate an int8 model with: none that is measured, but in a text that has too few others."""
    known = set(measured)
    others = [line for line in _lines(text, "valid") if line not in known]
    return (others if len(others) >= min(count, 16) else list(measured))[:count]


def _lines(text: str, split: str) -> list[str]:
    """All lines. WikiText-2 has one split to measure on and another one to calibrate with."""
    if text == "wikitext2":
        return paragraphs(wikitext2(split))
    content, _ = calibration_source(text)
    return paragraphs(content) if text in texts else [line for line in content.splitlines() if line.strip()]


def sentence(lines: Sequence[str], tokens: int, encode: Encode) -> str:
    """The first words of the first line that make exactly `tokens` tokens, special ones counted.

    Raises:
        InvalidArgument: If no line has such a beginning.
    """
    for line in lines:
        words = line.split()
        for count in range(1, min(len(words), tokens) + 1):
            made = " ".join(words[:count])
            length = encode(made)
            if length == tokens:
                return made
            if length > tokens:
                break
    raise InvalidArgument(f"bench embed: no line begins with words of {tokens} tokens; pass --tokens or another text.")


def folder_bytes(paths: Sequence[Path]) -> int:
    """Bytes of files, and of all files in folders."""
    files = [item for path in paths for item in (path.rglob("*") if path.is_dir() else [path])]
    return sum(item.stat().st_size for item in files if item.is_file())
