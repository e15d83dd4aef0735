"""What the orders do. Every engine gets the same tokens; sequences of a batch differ, and are of one length.

| order | fields | answer |
| --- | --- | --- |
| load | engine, spec | load_s, version (of its package, or null) |
| check | ids (.npy), expected (.npy of logits, or null), tokens | kl (to them), likely (of the steps in a whole pass) |
| quality | ids, reference (.npy of logits), window | perplexity, kl, top1, predictions |
| first | ids, prompt, repeat | times_s (from the prompt to its next token) |
| decode | ids, batch, context, steps | times_s (of each step) |
| settle | | (what the check needed is given back, and does not count as peak) |
| memory | | resident_bytes, peak_bytes |
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ... import quality
from ...embed.worker import orders
from ...embed.worker.orders import Answer, Order
from .engines import ENGINES, Engine, Float32, Ids

_WARM_STEPS = 2
_LIKELY = 5


class Server:
    """An engine."""

    def __init__(self) -> None:
        self._engine: Engine | None = None

    @property
    def handlers(self) -> Mapping[str, Callable[[Order], Answer]]:
        """What does each order."""
        return {
            "load": self._load,
            "check": self._check,
            "settle": self._settle,
            "quality": self._quality,
            "first": self._first,
            "decode": self._decode,
        }

    @property
    def engine(self) -> Engine:
        """The engine that was loaded."""
        if self._engine is None:
            raise RuntimeError("nothing is loaded")
        return self._engine

    def _load(self, order: Order) -> Answer:
        start = time.perf_counter()
        kind = ENGINES[order["engine"]]
        self._engine = kind(order["spec"])
        return {"load_s": time.perf_counter() - start, "version": orders.version(kind.package)}

    def _check(self, order: Order) -> Answer:
        """What steps drew behind caches, of two sequences at once, must be likely to a pass over all tokens.

        The likeliest token alone would be too much: kernels for one token and for many may round x differently.
        """
        ids, count = _ids(order), int(order["tokens"])
        answer: Answer = {"kl": None}
        if order["expected"]:
            compared = quality.compare_logits(
                lambda row: np.load(order["expected"])[: row.size], self.engine.logits, [ids[:count].astype(np.int64)]
            )
            answer["kl"] = compared.kl
        prompts = ids[: 2 * count].reshape(2, count)
        drawn = [self.engine.prefill(prompts)]
        for _ in range(count // 4):
            drawn.append(self.engine.step(drawn[-1]))
        written = np.stack(drawn, axis=1)
        likely = []
        for prompt, row in zip(prompts, written, strict=True):
            logits = self.engine.logits(np.concatenate([prompt, row[:-1]]))[count - 1 :]
            best = np.argpartition(-logits, _LIKELY, axis=1)[:, :_LIKELY]
            likely.append((best == row[:, None]).any(axis=1))
        answer["likely"] = float(np.mean(likely))
        return answer

    def _settle(self, order: Order) -> Answer:
        self.engine.forget()
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak begins anew
        return {}

    def _quality(self, order: Order) -> Answer:
        reference = np.load(order["reference"], mmap_mode="r")
        windows = _ids(order)[: reference.shape[0]].astype(np.int64).reshape(-1, int(order["window"]))
        places = iter(range(0, reference.shape[0], int(order["window"])))

        def dense(row: npt.NDArray[np.int64]) -> Float32:
            at = next(places)
            return np.asarray(reference[at : at + row.size])

        found = quality.compare_logits(dense, self.engine.logits, windows)
        return {
            "perplexity": found.perplexity_sparse,
            "kl": max(found.kl, 0.0),  # a sum of float32 rounding may lie below
            "top1": found.top1_agreement,
            "predictions": found.predictions,
        }

    def _first(self, order: Order) -> Answer:
        prompt = _ids(order)[: order["prompt"]][None]
        self.engine.prefill(prompt)
        times = []
        for _ in range(order["repeat"]):
            start = time.perf_counter()
            self.engine.prefill(prompt)
            times.append(time.perf_counter() - start)
        return {"times_s": times}

    def _decode(self, order: Order) -> Answer:
        batch, context = int(order["batch"]), int(order["context"])
        ids = _ids(order)
        tokens = self.engine.prefill(np.resize(ids, batch * context).reshape(batch, context))
        for _ in range(_WARM_STEPS):
            tokens = self.engine.step(tokens)
        times = []
        for _ in range(order["steps"]):
            start = time.perf_counter()
            tokens = self.engine.step(tokens)
            times.append(time.perf_counter() - start)
        return {"times_s": times}


def _ids(order: Order) -> Ids:
    found: Ids = np.load(order["ids"])
    return found


def serve() -> None:
    """Answer until standard input ends."""
    orders.serve(Server().handlers)
