"""Orders in, answers out. An order that fails is answered with `error`, and the process lives on.

| order | fields | answer |
| --- | --- | --- |
| load | engine, spec | load_s, version (of its package, or null) |
| texts | file (a JSON list of strings) | lines |
| embed | batch (0: sorted by length, 32 at a time), count, out (a .npy file) | vectors |
| ready | batch | |
| run | batch, sorted, count, repeat | seconds, lines, times_s (of single batches, where they ran one by one) |
| memory | | resident_bytes, peak_bytes, null where the system does not say |
| quit | | |
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from .engines import ENGINES, Engine

Order = Mapping[str, Any]
Answer = dict[str, Any]


class Server:
    """An engine and the texts that it is asked about."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._texts: list[str] = []

    def answer(self, order: Order) -> Answer:
        """Do what an order says."""
        handlers: dict[str, Callable[[Order], Answer]] = {
            "load": self._load,
            "texts": self._read,
            "embed": self._embed,
            "ready": self._ready,
            "run": self._run,
            "memory": _memory,
        }
        return handlers[order["order"]](order)

    def _load(self, order: Order) -> Answer:
        start = time.perf_counter()
        self._engine = ENGINES[order["engine"]](order["spec"])
        return {"load_s": time.perf_counter() - start, "version": _version(order["engine"])}

    def _read(self, order: Order) -> Answer:
        self._texts = json.loads(Path(order["file"]).read_text(encoding="utf-8"))
        return {"lines": len(self._texts)}

    def _embed(self, order: Order) -> Answer:
        texts, batch = self._texts[: order["count"]], order["batch"]
        if batch:
            vectors = np.concatenate(self.engine.encode_chunks(_chunks(texts, batch))[0])
        else:
            vectors = self.engine.encode_sorted(texts, 32)
        np.save(order["out"], vectors, allow_pickle=False)
        return {"vectors": len(vectors)}

    def _ready(self, order: Order) -> Answer:
        self.engine.ready(order["batch"])
        return {}

    def _run(self, order: Order) -> Answer:
        texts = self._texts[: order["count"]] * order["repeat"]
        begin = time.perf_counter()
        times: list[float] = []
        if order["sorted"]:
            self.engine.encode_sorted(texts, order["batch"])
        else:
            times = self.engine.encode_chunks(_chunks(texts, order["batch"]))[1]
        return {"seconds": time.perf_counter() - begin, "lines": len(texts), "times_s": times}

    @property
    def engine(self) -> Engine:
        """The engine that was loaded."""
        if self._engine is None:
            raise RuntimeError("nothing is loaded")
        return self._engine


def _chunks(texts: Sequence[str], batch: int) -> list[Sequence[str]]:
    return [texts[start : start + batch] for start in range(0, len(texts), batch)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _memory(order: Order) -> Answer:
    found: Answer = {"resident_bytes": None, "peak_bytes": None}
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return found
    for name, key in (("VmRSS:", "resident_bytes"), ("VmHWM:", "peak_bytes")):
        found[key] = next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)
    return found


def serve() -> None:
    """Answer until standard input ends. What an engine prints goes to standard error; standard output holds answers."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    server = Server()
    for line in sys.stdin:
        order = json.loads(line)
        if order["order"] == "quit":
            return
        try:
            answer = server.answer(order)
        except Exception as error:  # an engine raises anything; who asked makes a row of it
            answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
