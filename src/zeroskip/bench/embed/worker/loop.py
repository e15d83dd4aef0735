"""What the orders do.

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
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from . import orders
from .engines import ENGINES, Engine
from .orders import Answer, Order


class Server:
    """An engine and the texts that it is asked about."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._texts: list[str] = []

    @property
    def handlers(self) -> Mapping[str, Callable[[Order], Answer]]:
        """What does each order."""
        return {
            "load": self._load,
            "texts": self._read,
            "embed": self._embed,
            "ready": self._ready,
            "run": self._run,
        }

    def _load(self, order: Order) -> Answer:
        start = time.perf_counter()
        self._engine = ENGINES[order["engine"]](order["spec"])
        return {"load_s": time.perf_counter() - start, "version": orders.version(order["engine"])}

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


def serve() -> None:
    """Answer until standard input ends."""
    orders.serve(Server().handlers)
