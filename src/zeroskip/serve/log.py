"""One line a request on standard error, as JSON or for people. Texts, keys and vectors never stand in it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any, TextIO


class Log:
    """Where lines go.

    Args:
        format: `json`, `text`, or `off`.
        stream: The stream; None for standard error.
    """

    def __init__(self, format: str, stream: TextIO | None = None) -> None:
        self._format = format
        self._stream = stream

    def write(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write one line; fields that are None are left out."""
        if self._format == "off":
            return
        found = {name: value for name, value in fields.items() if value is not None}
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1e3) % 1000:03d}Z"
        if self._format == "json":
            line = json.dumps({"time": stamp, "level": level, "event": event, **found}, ensure_ascii=True)
        else:
            words = " ".join(f"{name}={_plain(value)}" for name, value in found.items())
            line = f"{stamp} {level} {event} {words}".rstrip()
        try:
            print(line, file=self._stream or sys.stderr, flush=True)
        except (OSError, ValueError):  # nobody reads it any more: no reason to stop answering
            self._format = "off"


def _plain(value: Any) -> str:
    """A value without line breaks or control characters: what a client sends must not make lines of its own."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
