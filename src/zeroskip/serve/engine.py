"""The model behind the server, from admission to vectors; knows no HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._errors import InvalidArgument
from ..io import TOKENIZER
from ..kernels import num_threads
from ..runtime.compiled import CompiledModel
from ..runtime.text import Ids
from .batcher import Batcher, Job, QueueFull
from .errors import ApiError, bad, stopping
from .metrics import Metrics
from .requests import Inputs, Known
from .settings import Settings
from .tokens import NoTokens, Tokenising, TooLong


@dataclass(frozen=True)
class Loaded:
    """A model that answers, and what requests are checked against."""

    model: CompiledModel
    known: Known
    since: int

    @property
    def limit(self) -> int | None:
        """Most tokens of a text."""
        return self.model.text.settings.max_length


class Engine:
    """A compiled encoder, its queue and its threads.

    Args:
        model: The encoder; `replace` changes it while the server runs.
        settings: Limits.
        metrics: What is counted.
    Raises:
        InvalidArgument: If the model makes no embeddings.
    """

    def __init__(self, model: CompiledModel, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._threads = threading.Lock()
        self._batcher: Batcher | None = None
        self._tokenising: Tokenising | None = None
        self.draining = False
        self.loaded = self._take(model)

    def start(self) -> None:
        """Start the threads; a second call does nothing."""
        with self._threads:
            if self._batcher is None:
                self._batcher = Batcher(
                    batch_tokens=self._settings.batch_tokens or max(1024, 256 * num_threads()),
                    max_wait_s=self._settings.max_wait_ms / 1e3,
                    queue_texts=self._settings.queue_texts,
                    on_run=self._metrics.run,
                )
                self._tokenising = Tokenising(self._batcher, refuse_long=self._settings.refuse_long)
                batcher = self._batcher
                self._metrics.watch_queue(lambda: batcher.queued)

    def close(self) -> None:
        """Stop the threads."""
        self.draining = True
        with self._threads:
            if self._tokenising is not None and self._batcher is not None:
                self._tokenising.close()
                self._batcher.close()

    @property
    def ready(self) -> bool:
        """Whether requests are taken."""
        working = self._batcher is not None and self._batcher.alive
        return working and not self.draining and self._tokenising is not None and self._tokenising.alive

    def replace(self, model: CompiledModel) -> None:
        """Answer with another model from the next request on; those that wait get the old one."""
        self.loaded = self._take(model)

    def submit(self, inputs: Inputs, loaded: Loaded) -> tuple[Job, asyncio.Future[Job]]:
        """Take a request in.

        Args:
            inputs: Its texts or token ids, checked against `loaded`.
            loaded: The model that is to answer.
        Returns:
            The job, and a future that is done when its vectors are there.
        Raises:
            ApiError: 429 if the queue is full, 503 if the server is stopping, 400 where the model takes no texts.
        """
        if self.draining:
            raise stopping()
        self.start()
        assert self._batcher is not None
        assert self._tokenising is not None
        texts = [item for item in inputs if isinstance(item, str)]
        if texts and TOKENIZER not in loaded.model.text.files:
            raise bad("input", "input is text, but the model was compiled without a tokenizer; pass token ids.")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Job] = loop.create_future()
        settings = loaded.model.text.settings
        job = Job(loaded.model, len(inputs), normalize=settings.normalize, done=_teller(loop, future))
        ids = self._cut_ids(job, [item for item in inputs if not isinstance(item, str)], loaded.limit)
        try:
            self._batcher.admit(job)
        except QueueFull as full:
            self._metrics.rejected(job.texts)
            wait = str(min(max(math.ceil(full.retry_s), 1), 600))
            raise ApiError(
                429, f"The queue is full; try again in {wait} s.", "queue_full", headers={"Retry-After": wait}
            ) from None
        if ids:
            self._batcher.put(job, 0, ids)
        else:
            self._tokenising.put(job, loaded.model.text, texts)
        return job, future

    def abandon(self, job: Job) -> None:
        """Forget a request whose client went away."""
        if self._batcher is not None:
            self._batcher.drop(job)

    def explain(self, job: Job, many: bool) -> ApiError:
        """What a client is told of a job that failed."""
        error = job.error
        where = f"input[{error.row}]" if isinstance(error, TooLong) and many else "input"
        if isinstance(error, NoTokens):
            return bad("input", f"{where} has no tokens; leave it out.", "empty_input")
        if isinstance(error, TooLong):
            return too_long(where, self.loaded.limit)
        return ApiError(500, f"The model failed ({type(error).__name__}).", "internal_error")

    def _cut_ids(self, job: Job, inputs: Sequence[Ids], limit: int | None) -> list[Ids]:
        found: list[Ids] = []
        for row, item in enumerate(inputs):
            if limit is not None and item.size > limit:
                if self._settings.refuse_long:
                    raise too_long(f"input[{row}]" if len(inputs) > 1 else "input", limit)
                job.cut += 1
                item = item[:limit]
            found.append(item)
        return found

    def _take(self, model: CompiledModel) -> Loaded:
        """Check a model and run it once, so that the first request finds it warm."""
        if model.kind != "encoder":
            raise InvalidArgument(
                f"serve: {model.name} is a {model.kind}, which makes no embeddings; pass a compiled encoder."
            )
        text = model.text
        limits = [most for most in (text.settings.max_length, model.max_positions) if most]
        if limits and min(limits) != text.settings.max_length:  # what the model cannot take must not reach it
            text.settings = replace(text.settings, max_length=min(limits))
        if TOKENIZER in text.files:
            text.encode_cut(["a"])
        model.vectors([np.zeros(1, dtype=np.int32)])
        known = Known(self._settings.name or model.name, model.features, model.vocabulary)
        self._metrics.model(model, known)
        return Loaded(model, known, int(time.time()))


def too_long(where: str, limit: int | None) -> ApiError:
    """400: this server does not cut texts."""
    return bad(
        "input",
        f"{where} has more than {limit} tokens, which this server refuses; shorten it.",
        "context_length_exceeded",
    )


def _teller(loop: asyncio.AbstractEventLoop, future: asyncio.Future[Job]) -> Callable[[Job], None]:
    """What a thread calls to wake the request in its loop."""

    def settle(job: Job) -> None:
        if not future.done():
            future.set_result(job)

    def tell(job: Job) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            loop.call_soon_threadsafe(settle, job)

    return tell


__all__: tuple[Any, ...] = ("Engine", "Loaded")
