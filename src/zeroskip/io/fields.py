"""Typed access to JSON that nobody vouches for."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .._errors import DamagedFile

LIMIT_BYTES = 64 * 2**20


class Fields:
    """One JSON object; every getter checks the type and says where it was wrong.

    Args:
        where: How to call the object in a message: the file, then the path in it.
        value: What was parsed.
    """

    def __init__(self, where: str, value: Any) -> None:
        if not isinstance(value, dict):
            raise DamagedFile(f"{where} is {_kind(value)}, it must be an object; save the model again.")
        self.where = where
        self._value = value

    def __contains__(self, key: object) -> bool:
        return self._value.get(key) is not None

    def items(self) -> Iterator[tuple[str, Any]]:
        return iter(self._value.items())

    def raw(self, key: str) -> Any:
        return self._value.get(key)

    def text(self, key: str, *, limit: int = 1 << 20) -> str:
        value = self._value.get(key)
        if not isinstance(value, str) or len(value) > limit:
            raise self.wrong(key, "a text")
        return value

    def optional_text(self, key: str) -> str | None:
        return self.text(key) if key in self else None

    def choice(self, key: str, among: tuple[str, ...]) -> str:
        value = self._value.get(key)
        if value not in among:
            raise self.wrong(key, f"one of {', '.join(among)}")
        return str(value)

    def flag(self, key: str) -> bool:
        value = self._value.get(key)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def integer(self, key: str, low: int = 0, high: int = 2**31 - 1) -> int:
        value = self._value.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.wrong(key, f"a whole number from {low} to {high}")
        return value

    def optional_integer(self, key: str, low: int = 0, high: int = 2**31 - 1) -> int | None:
        return self.integer(key, low, high) if key in self else None

    def number(self, key: str) -> float:
        value = self._value.get(key)
        if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
            raise self.wrong(key, "a finite number")
        return float(value)

    def integers(self, key: str, *, low: int = 0, high: int = 2**31 - 1, limit: int = 4096) -> list[int]:
        value = self._value.get(key)
        whole = isinstance(value, list) and len(value) <= limit
        if not whole or not all(type(item) is int and low <= item <= high for item in value or ()):
            raise self.wrong(key, f"a list of whole numbers from {low} to {high}")
        return list(value or ())

    def child(self, key: str) -> Fields:
        return Fields(f"{self.where}: {key}", self._value.get(key))

    def children(self, key: str) -> list[Fields]:
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self.wrong(key, "a list")
        return [Fields(f"{self.where}: {key}[{index}]", item) for index, item in enumerate(value)]

    def wrong(self, key: str, wanted: str) -> DamagedFile:
        return DamagedFile(
            f"{self.where}: {key!r} is {_kind(self._value.get(key))}, it must be {wanted}; save it again."
        )


def read_fields(path: Path) -> Fields:
    """The JSON object in a file.

    Raises:
        DamagedFile: If the file is missing, too large, or holds no JSON object.
    """
    try:
        size = path.stat().st_size
        if size > LIMIT_BYTES:
            raise DamagedFile(f"load: {path} has {size} bytes, above the limit of {LIMIT_BYTES}; copy the model again.")
        value = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_no_constant)
    except OSError as error:
        raise DamagedFile(f"load: {path} cannot be read ({error.strerror}); copy the model again.") from None
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"load: {path} is no valid JSON ({error}); copy the model again.") from None
    return Fields(f"load: {path}", value)


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _kind(value: Any) -> str:
    """A value for a message: itself if it is short, else its type."""
    text = repr(value) if value is None or isinstance(value, str | int | float) else ""
    return text if text and len(text) <= 60 else f"a {type(value).__name__}"
