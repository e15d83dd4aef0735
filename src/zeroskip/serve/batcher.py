"""Dynamic batching: requests wait in a bounded queue, and one worker runs their texts together.

The native executor uses every core itself, so there is one worker. It takes one text of each waiting request in turn
until the tokens of a run are full: a request of a thousand texts gets its share of each run and nobody waits behind
it. The executor packs sequences without padding, so texts of different lengths may share a run.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ..runtime.embed import unit
from ..runtime.text import Ids

Float32 = npt.NDArray[np.float32]

# How much the latest run counts in the measured rate.
_FRESH = 0.1


class Model(Protocol):
    """What the worker runs."""

    @property
    def features(self) -> int: ...

    def vectors(self, ids: Sequence[Ids]) -> Float32: ...


class Job:
    """One request in the queue.

    Args:
        model: What its texts run on.
        texts: How many there are.
        normalize: Whether vectors get length 1.
        done: Called by the worker's thread when the vectors are there, or `error` is set.
    """

    def __init__(self, model: Model, texts: int, *, normalize: bool, done: Callable[[Job], None]) -> None:
        self.model = model
        self.texts = texts
        self.normalize = normalize
        self.done = done
        self.waiting: deque[tuple[int, Ids]] = deque()  # tokenised and not yet taken: (row, ids)
        self.vectors: Float32 = np.empty((texts, model.features), dtype=np.float32)
        self.queued = texts  # counted in the queue
        self.left = texts  # rows still to come
        self.tokens = 0
        self.cut = 0
        self.gone = False  # the client went away
        self.error: Exception | None = None
        self.arrived = time.perf_counter()
        self.started = 0.0


class QueueFull(Exception):
    """No room for a request.

    Args:
        retry_s: Seconds until there should be.
    """

    def __init__(self, retry_s: float) -> None:
        super().__init__(f"the queue is full for {retry_s:.1f} s")
        self.retry_s = retry_s


class Batcher:
    """The queue and its worker.

    Args:
        batch_tokens: Most tokens of one run, but for a single longer text.
        max_wait_s: How long an idle worker waits for texts that are admitted and not yet tokenised.
        queue_texts: Most texts that wait.
        on_run: Called after each run with (texts, tokens, seconds), by the worker's thread.
    """

    def __init__(
        self, *, batch_tokens: int, max_wait_s: float, queue_texts: int, on_run: Callable[[int, int, float], None]
    ) -> None:
        self._batch_tokens = batch_tokens
        self._max_wait_s = max_wait_s
        self._queue_texts = queue_texts
        self._on_run = on_run
        self._changed = threading.Condition()
        self._turns: deque[Job] = deque()  # jobs with texts to run, in the order of their turns
        self._ready_tokens = 0
        self._tokenising = 0  # texts admitted that have no ids yet
        self._queued = 0
        self._texts_a_second = 0.0
        self._stop = False
        self._thread = threading.Thread(target=self._work, name="zeroskip-worker", daemon=True)
        self._thread.start()

    # ---- what the server calls ----

    def admit(self, job: Job) -> None:
        """Count a request in, before its texts are tokenised.

        Raises:
            QueueFull: If it does not fit.
        """
        with self._changed:
            if self._queued + job.texts > self._queue_texts:
                over = self._queued + job.texts - self._queue_texts
                raise QueueFull(over / self._texts_a_second if self._texts_a_second else 1.0)
            self._queued += job.texts
            self._tokenising += job.texts

    def put(self, job: Job, first: int, ids: Sequence[Ids]) -> None:
        """Give some texts of an admitted request to the worker: rows `first` and following."""
        with self._changed:
            if job.gone:
                return
            self._tokenising -= len(ids)
            if not job.waiting:
                self._turns.append(job)
            job.waiting.extend((first + place, item) for place, item in enumerate(ids))
            tokens = sum(item.size for item in ids)
            job.tokens += tokens
            self._ready_tokens += tokens
            self._changed.notify()

    def drop(self, job: Job) -> None:
        """Take what is left of a request out of the queue: its client went away, or it cannot be tokenised."""
        with self._changed:
            if job.gone or not job.queued:
                job.gone = True
                return
            job.gone = True
            self._queued -= job.queued
            self._tokenising -= job.queued - len(job.waiting)
            self._ready_tokens -= sum(item.size for _, item in job.waiting)
            if job.waiting:
                self._turns.remove(job)
            job.waiting.clear()
            job.queued = 0
            self._changed.notify()

    def close(self, timeout_s: float = 10.0) -> None:
        """Stop the worker after its present run."""
        with self._changed:
            self._stop = True
            self._changed.notify()
        self._thread.join(timeout_s)

    @property
    def alive(self) -> bool:
        """Whether the worker works."""
        return self._thread.is_alive()

    @property
    def queued(self) -> int:
        """Texts that wait."""
        return self._queued

    # ---- the worker ----

    def _work(self) -> None:
        while True:
            batch = self._next()
            if batch is None:
                return
            self._run(batch)

    def _next(self) -> list[tuple[Job, int, Ids]] | None:
        """The texts of the next run, when there are some; None at the end."""
        with self._changed:
            while not self._turns:
                if self._stop:
                    return None
                self._changed.wait()
            until = time.perf_counter() + self._max_wait_s
            while self._turns and self._tokenising > 0 and self._ready_tokens < self._batch_tokens and not self._stop:
                left = until - time.perf_counter()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self._take()

    def _take(self) -> list[tuple[Job, int, Ids]]:
        batch: list[tuple[Job, int, Ids]] = []
        tokens = 0
        now = time.perf_counter()
        while self._turns:
            job = self._turns[0]
            row, ids = job.waiting[0]
            if batch and (tokens + ids.size > self._batch_tokens or job.model is not batch[0][0].model):
                break
            self._turns.popleft()
            job.waiting.popleft()
            job.queued -= 1
            job.started = job.started or now
            if job.waiting:
                self._turns.append(job)
            batch.append((job, row, ids))
            tokens += ids.size
        self._ready_tokens -= tokens
        self._queued -= len(batch)
        batch.sort(key=lambda item: -item[2].size)  # long ones first: their work is shared out before the threads idle
        return batch

    def _run(self, batch: list[tuple[Job, int, Ids]]) -> None:
        batch = [item for item in batch if not item[0].gone]
        if not batch:
            return
        begin = time.perf_counter()
        error: Exception | None = None
        try:
            vectors = batch[0][0].model.vectors([ids for _, _, ids in batch])
            if not np.isfinite(vectors).all():
                raise ArithmeticError("the model gave a vector that is not finite")
            scaled = unit(vectors) if any(job.normalize for job, _, _ in batch) else vectors
            for place, (job, row, _) in enumerate(batch):
                job.vectors[row] = scaled[place] if job.normalize else vectors[place]
        except Exception as failed:  # the server lives on
            if len(batch) > 1:  # a text must not fail those that share its run
                for item in batch:
                    self._run([item])
                return
            error = failed
        spent = time.perf_counter() - begin
        for job in self._settle(batch, error, spent):
            job.done(job)
        self._on_run(len(batch), sum(ids.size for _, _, ids in batch), spent)

    def _settle(self, batch: list[tuple[Job, int, Ids]], error: Exception | None, spent: float) -> list[Job]:
        """Count rows off; the jobs that are complete or have failed now."""
        finished = []
        with self._changed:
            rate = len(batch) / max(spent, 1e-6)
            self._texts_a_second += (rate - self._texts_a_second) * (_FRESH if self._texts_a_second else 1.0)
            for job, _, _ in batch:
                job.left -= 1
                if error is not None and job.error is None:
                    job.error = error
                    finished.append(job)
                elif not job.left and job.error is None and not job.gone:
                    finished.append(job)
        for job in finished:
            if job.error is not None:
                self.drop(job)
        return finished
