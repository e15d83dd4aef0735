"""Texts to calibrate and to evaluate with."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .._errors import InvalidArgument, MissingDependency
from .._registry import Registry

_MIN_CHARS = 30


@dataclass(frozen=True)
class TextSource:
    """A text that has a name.

    Args:
        name: What `calibration=` takes.
        summary: One line for people.
        licence: Under which it stands.
        read: Gives the whole text.
    """

    name: str
    summary: str
    licence: str
    read: Callable[[], str]


texts: Registry[TextSource] = Registry("text", "zeroskip.datasets")


def data_dir() -> Path:
    """The folder that `ZEROSKIP_DATA_DIR` names.

    Raises:
        MissingDependency: If it is not set or no folder.
    """
    named = os.environ.get("ZEROSKIP_DATA_DIR")
    if not named or not Path(named).is_dir():
        raise MissingDependency(
            f"datasets: ZEROSKIP_DATA_DIR is {named or 'not set'}; set it to the folder with the real data."
        )
    return Path(named)


def wikitext2(split: str = "test") -> str:
    """The whole text of a WikiText-2 split (the tokenised variant with `<unk>`), from `ZEROSKIP_DATA_DIR/text`.

    Args:
        split: `test` or `valid`.
    Raises:
        MissingDependency: If the data is not there.
    """
    if split not in ("test", "valid"):
        raise InvalidArgument(f"wikitext2: split is {split!r}; choose test or valid.")
    path = data_dir() / "text" / f"wikitext2_{split}.txt"
    if not path.is_file():
        raise MissingDependency(f"wikitext2: {path} is not there; put the text where ZEROSKIP_DATA_DIR points.")
    return path.read_text(encoding="utf-8")


def calibration_source(source: str | Path) -> tuple[str, str]:
    """A text by name or path, and how to call it in a report.

    Raises:
        InvalidArgument: If it is no known name and no readable file with text.
    """
    if isinstance(source, str) and source in texts:
        known = texts.get(source)
        return known.read(), f"{known.name} ({known.summary})"
    path = Path(source).expanduser()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = "is no file" if not path.is_file() else f"cannot be read as UTF-8 text ({error})"
        raise InvalidArgument(
            f"calibration: {str(source)!r} {reason}; pass a text file or one of: {', '.join(texts.names())}."
        ) from error
    if not text.strip():
        raise InvalidArgument(f"calibration: {str(source)!r} is empty; pass a text file with some pages of text.")
    return text, str(path)


def paragraphs(text: str) -> list[str]:
    """Lines that say something: at least 30 characters, headings (`= ... =`) and rulers left out."""
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if len(line) >= _MIN_CHARS and not line.startswith(("= ", "**", "--", "=="))]


def calibration_texts(source: str | Path = "pydoc") -> list[str]:
    """The paragraphs of a text by name (`pydoc`, `wikitext2`) or path, for models that take one sentence or paragraph
    at a time.

    Raises:
        InvalidArgument: If it is no known name and no readable file with text.
    """
    found = paragraphs(calibration_source(source)[0])
    if not found:
        raise InvalidArgument(
            f"calibration: {str(source)!r} has no line of {_MIN_CHARS} characters; pass running text."
        )
    return found
