"""Where a command's output goes: its result to standard output, everything else to standard error."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

BAR_DELAY_S = 2.0


class UsageError(Exception):
    """Wrong use found after the options were parsed; exit code 2."""


class Console:
    """The two streams of a command.

    Args:
        json: The result is one JSON document on `out`; tables then go to `err`.
        quiet: Nothing goes to `err` but errors.
    """

    def __init__(self, *, json: bool, quiet: bool, out: TextIO, err: TextIO) -> None:
        self.json = json
        self.quiet = quiet
        self.out = out
        self.err = err

    def say(self, text: str = "") -> None:
        """A note for the reader, never part of the result."""
        if not self.quiet:
            print(text, file=self.err, flush=True)

    def show(self, text: str = "") -> None:
        """The result as people read it: on `out`, or on `err` when that holds JSON."""
        if not self.json:
            print(text, file=self.out, flush=True)
        else:
            self.say(text)

    def stream(self, text: str) -> None:
        """A piece of the result, as it comes."""
        if not self.json:
            self.out.write(text)
            self.out.flush()

    def emit(self, document: Any) -> None:
        """The result as machines read it; printed only with --json."""
        if self.json:
            print(json.dumps(document, indent=2, allow_nan=False, default=_plain), file=self.out, flush=True)

    def flush(self) -> None:
        self.out.flush()

    @contextmanager
    def progress(self, title: str = "") -> Iterator[Bars]:
        """Bars for long work; the value is called as `(stage, done, total)`."""
        bars = Bars(title, shown=not self.quiet and self.err.isatty(), stream=self.err, say=self.say)
        try:
            yield bars
        finally:
            bars.close()


class Bars:
    """Draws one bar a stage, and only once the stage has lasted two seconds; nothing when not on a terminal."""

    def __init__(
        self, title: str, *, shown: bool, stream: TextIO, say: Callable[[str], None] = lambda _text: None
    ) -> None:
        self._title = title
        self._say = say
        self._shown = shown
        self._stream = stream
        self._stage: str | None = None
        self._bar: Any = None

    def __call__(self, stage: str, done: int, total: int) -> None:
        if not self._shown:
            return
        if stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = self._open(stage, total)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)

    def note(self, text: str) -> None:
        """A few words behind the bar, such as a loss; they are gone with it."""
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)

    def say(self, text: str) -> None:
        """A line that stays, below the bar."""
        self.close()
        self._say(text)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = None
        self._stage = None

    def _open(self, stage: str, total: int) -> Any:
        try:
            from tqdm import tqdm  # type: ignore[import-untyped, unused-ignore]
        except ImportError:  # bars are a comfort: the work goes on without them
            return None
        label = f"{self._title}: {stage}" if self._title else stage
        return tqdm(
            total=total,
            desc=label,
            file=self._stream,
            disable=False,
            delay=BAR_DELAY_S,
            leave=False,
            dynamic_ncols=True,
        )


def _plain(value: Any) -> Any:
    """NumPy numbers and arrays, tuples in dataclasses and paths, as JSON has them."""
    for method in ("tolist", "item", "to_json"):
        if hasattr(value, method):
            return getattr(value, method)()
    return str(value)
