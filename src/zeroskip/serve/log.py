"""One line a request on standard error, as JSON or for people. Texts, keys and vectors never stand in it.

A thread writes: whoever reads the log and stalls (a full pipe, a full disk) must not stall the server. What it cannot
take is dropped and counted.
"""

from __future__ import annotations

import contextlib
import json
import queue
import sys
import threading
import time
from typing import Any, TextIO

# Lines that wait for a reader that stalls.
_MOST_WAITING = 10_000


class Log:
    """Where lines go.

    Args:
        format: `json`, `text`, or `off`.
        stream: The stream; None for standard error.
    """

    def __init__(self, format: str, stream: TextIO | None = None) -> None:
        self._format = format
        self._stream = stream
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread: threading.Thread | None = None

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
        if self._lines.qsize() >= _MOST_WAITING:
            self._dropped += 1
            return
        self._lines.put(line)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="zeroskip-log", daemon=True)
            self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Write what waits, if anybody reads it."""
        self._lines.put(None)
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        last = False
        while not last:
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while lines[-1] is not None:
                    lines.append(self._lines.get_nowait())
            last = lines[-1] is None
            dropped, self._dropped = self._dropped, 0
            if dropped:
                lines.insert(0, f'{{"level": "warning", "event": "log lines dropped", "lines": {dropped}}}')
            text = "".join(f"{line}\n" for line in lines if line is not None)
            try:
                print(text, end="", file=self._stream or sys.stderr, flush=True)
            except (OSError, ValueError):  # nobody reads it any more: no reason to stop answering
                self._format = "off"


def _plain(value: Any) -> str:
    """A value without line breaks or control characters: what a client sends must not make lines of its own."""
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if text.isprintable() and " " not in text else json.dumps(text)
