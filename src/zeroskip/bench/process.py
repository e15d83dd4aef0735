"""Worker processes: started, asked, waited for until they are quiet, ended. What goes wrong is a reason, no crash."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

QUIET_MAX_S = 1.0
_END_S = 10.0


class WorkerFailed(Exception):
    """A worker gave no answer, or said that it cannot; the text is the reason that a row shows."""


class Worker:
    """One process with one engine.

    Args:
        command: What starts it.
        threads: Of everything in it.
        limit_s: How long an answer may take.
    """

    def __init__(self, command: Sequence[str], *, threads: int, limit_s: float) -> None:
        self._limit_s = limit_s
        self.version: str | None = None  # of the engine, once it is loaded
        # It lives as long as the process; close() closes it.
        self._words: IO[str] = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self.started = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._words,
                encoding="utf-8",
                env=environment(threads),
            )
        except OSError as error:
            raise WorkerFailed(f"cannot be started: {command[0]}: {error.strerror}") from None
        self._answers: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def ask(self, order: str, **fields: Any) -> dict[str, Any]:
        """Send an order and wait for its answer.

        Raises:
            WorkerFailed: If the process ended, took too long (it is ended then), or answered with an error.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"order": order, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=self._limit_s)
        except BrokenPipeError:
            line = None
        except queue.Empty:
            self._process.kill()
            raise WorkerFailed(f"{order}: no answer in {self._limit_s:g} s") from None
        if line is None:
            raise WorkerFailed(f"{order}: the process ended with code {self._process.wait()}{self._last_words()}")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self._process.kill()
            raise WorkerFailed(f"{order}: the answer is no JSON: {line.strip()[:80]}") from None
        if "error" in answer:
            raise WorkerFailed(f"{order}: {answer['error']}")
        return answer

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def cpu_s(self) -> float:
        """Processor time that the process has used; 0 where the system does not say."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        except (OSError, ValueError, IndexError, AttributeError):
            return 0.0

    def close(self) -> None:
        """End the process, by force if it does not go by itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
        try:
            self._process.wait(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._words.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put(None)

    def _last_words(self) -> str:
        """The last line that the process printed, which is mostly the reason."""
        self._words.seek(0)
        lines = [line.strip() for line in self._words.read().splitlines() if line.strip()]
        return f" ({lines[-1][:200]})" if lines else ""


def environment(threads: int) -> Mapping[str, str]:
    """The environment of a worker: the same number of threads for whatever asks; tokenizers may use as many."""
    count = str(threads)
    names = ("ZEROSKIP", "OMP", "MKL", "OPENBLAS", "RAYON")
    return {
        **os.environ,
        **{f"{name}_NUM_THREADS": count for name in names},
        "TOKENIZERS_PARALLELISM": "true" if threads > 1 else "false",
    }


def quiet(workers: Sequence[Worker]) -> None:
    """Wait until no worker uses the processor; threads spin for a while after a call. Clock ticks are 10 ms."""
    end = time.perf_counter() + QUIET_MAX_S
    while time.perf_counter() < end:
        before = sum(worker.cpu_s() for worker in workers)
        time.sleep(0.05)
        if sum(worker.cpu_s() for worker in workers) - before < 0.015:
            return
