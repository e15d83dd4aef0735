"""Tokenising beside the event loop and the worker: short requests in one thread, long ones in another."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence

from ..runtime.text import Text
from .batcher import Batcher, Job

# Characters from which a request is long: some milliseconds of tokenising, which short ones should not wait for.
LONG_CHARS = 32_768
# Characters that are tokenised at a time, so that the worker has something to run meanwhile.
PIECE_CHARS = 16_384


class TooLong(Exception):
    """A text has more tokens than the model takes, and the server is told to refuse such.

    Args:
        row: Which one of the request.
    """

    def __init__(self, row: int) -> None:
        super().__init__(f"text {row} is too long")
        self.row = row


class NoTokens(TooLong):
    """A text has no tokens: nothing to embed."""


class Tokenising:
    """The threads that turn admitted texts into token ids.

    Args:
        batcher: Where the ids go.
        refuse_long: Whether a text that would be cut fails its request.
    """

    def __init__(self, batcher: Batcher, *, refuse_long: bool) -> None:
        self._batcher = batcher
        self._refuse_long = refuse_long
        self._lanes = [_Lane(self._tokenise, f"zeroskip-tokens-{name}") for name in ("short", "long")]

    def put(self, job: Job, text: Text, texts: Sequence[str]) -> None:
        """Tokenise the texts of an admitted job, some time later."""
        long = sum(map(len, texts)) > LONG_CHARS
        self._lanes[long].put((job, text, texts))

    def close(self) -> None:
        """Stop both threads after what they do now."""
        for lane in self._lanes:
            lane.close()

    @property
    def alive(self) -> bool:
        """Whether both threads work."""
        return all(lane.alive for lane in self._lanes)

    def _tokenise(self, job: Job, text: Text, texts: Sequence[str]) -> None:
        first = 0
        try:
            while first < len(texts) and not job.gone:
                last = _piece(texts, first)
                ids, cut = text.encode_cut(texts[first:last])
                for row, (item, was_cut) in enumerate(zip(ids, cut, strict=True), start=first):
                    if not item.size:
                        raise NoTokens(row)
                    if was_cut and self._refuse_long:
                        raise TooLong(row)
                job.cut += sum(cut)
                self._batcher.put(job, first, ids)
                first = last
        except Exception as error:  # a fault of one request, or of the tokenizer: the thread lives on
            if not job.gone and job.error is None:
                job.error = error
                self._batcher.drop(job)
                job.done(job)


def _piece(texts: Sequence[str], first: int) -> int:
    """Where a piece that begins at `first` ends."""
    chars = 0
    for place in range(first, len(texts)):
        chars += len(texts[place])
        if chars > PIECE_CHARS:
            return max(place, first + 1)
    return len(texts)


_Work = tuple[Job, Text, Sequence[str]]


class _Lane:
    """One thread and what waits for it."""

    def __init__(self, work: Callable[[Job, Text, Sequence[str]], None], name: str) -> None:
        self._work = work
        self._waiting: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, item: _Work) -> None:
        self._waiting.put(item)

    def close(self) -> None:
        self._waiting.put(None)
        self._thread.join(10.0)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._waiting.get()) is not None:
            self._work(*item)
