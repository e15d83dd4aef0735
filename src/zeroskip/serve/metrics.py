"""What Prometheus may read. Each app has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.exposition import generate_latest

from .. import __version__

if TYPE_CHECKING:
    from ..runtime.compiled import CompiledModel
    from .requests import Known

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 768, 1024, 2048, 4096)


class Metrics:
    """Counters of one app."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        own: Any = {"registry": self._registry}
        self._requests = Counter("zeroskip_requests", "Requests by path and status", ["path", "status"], **own)
        self._latency = Histogram(
            "zeroskip_request_seconds",
            "Time from the head of an embedding request to its answer",
            buckets=_SECONDS,
            **own,
        )
        self._queue = Gauge("zeroskip_queue_texts", "Texts that wait", **own)
        self._batch_texts = Histogram("zeroskip_batch_texts", "Texts of a run", buckets=_TEXTS, **own)
        self._batch_tokens = Histogram("zeroskip_batch_tokens", "Tokens of a run", buckets=_TOKENS, **own)
        self._batch_seconds = Histogram("zeroskip_batch_seconds", "Time of a run", buckets=_SECONDS, **own)
        self._rejected = Counter("zeroskip_rejected_texts", "Texts refused because the queue was full", **own)
        self._truncated = Counter("zeroskip_truncated_texts", "Texts that were cut to the model's limit", **own)
        self._gone = Counter("zeroskip_abandoned_requests", "Requests whose client went away", **own)
        self._info = Info("zeroskip_model", "The model that answers", **own)
        self._children: dict[tuple[str, int], Counter] = {}

    def request(self, path: str, status: int) -> None:
        """Count an answer; `path` is one of the app's own, so that clients cannot make new series."""
        key = (path, status)
        if key not in self._children:
            self._children[key] = self._requests.labels(path, str(status))
        self._children[key].inc()

    def latency(self, seconds: float) -> None:
        """Record how long an embedding request took."""
        self._latency.observe(seconds)

    def run(self, texts: int, tokens: int, seconds: float) -> None:
        """Record a run of the model."""
        self._batch_texts.observe(texts)
        self._batch_tokens.observe(tokens)
        self._batch_seconds.observe(seconds)

    def rejected(self, texts: int) -> None:
        self._rejected.inc(texts)

    def truncated(self, texts: int) -> None:
        self._truncated.inc(texts)

    def gone(self) -> None:
        self._gone.inc()

    def model(self, model: CompiledModel, known: Known) -> None:
        """Say which model answers."""
        self._info.info(
            {
                "name": known.name,
                "family": model.family,
                "values": model.values,
                "features": str(known.features),
                "weights_bytes": str(model.nbytes),
                "zeroskip": __version__,
            }
        )

    def watch_queue(self, length: Callable[[], int]) -> None:
        """Ask for the length of the queue whenever it is read."""
        self._queue.set_function(length)

    def page(self) -> bytes:
        """Everything, in Prometheus' text form."""
        return generate_latest(self._registry)
