"""The ASGI app: OpenAI's embeddings, health and metrics over one engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from ..runtime.compiled import CompiledModel
from . import answers
from .batcher import Job
from .engine import Engine, Loaded
from .errors import ApiError, ClientGone, error_body, stopping
from .log import Log
from .metrics import CONTENT_TYPE, Metrics
from .observe import Note, Observed, header
from .requests import Asked, read_body, understand, unknown_model
from .settings import Settings

TRUNCATED = "x-zeroskip-truncated"

# Bytes of a body, and numbers of an answer, from which coding them is left to a thread: some milliseconds.
_LARGE_BODY_BYTES = 256 * 1024
_LARGE_ANSWER = 64 * 1024


def create_app(model: CompiledModel, settings: Settings | None = None, *, log: Log | None = None) -> Starlette:
    """An app that answers with a model; `app.state.engine` is the engine behind it.

    Args:
        model: A compiled encoder, from `zeroskip.load`.
        settings: Limits, keys, name; None for the defaults.
        log: Where its lines go; None for standard error in the form that `settings` names.
    Raises:
        InvalidArgument: If the model makes no embeddings.
    """
    given = settings or Settings()
    lines = log or Log(given.log_format)
    metrics = Metrics()
    engine = Engine(model, given, metrics)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        engine.start()
        try:
            yield
        finally:
            engine.close()

    pages = _Pages(engine, metrics)
    app = Starlette(
        routes=[
            Route("/v1/embeddings", _Embeddings(engine, metrics, given), methods=["POST"]),
            Route("/v1/models", pages.models),
            Route("/v1/models/{name:path}", pages.model),
            Route("/health", pages.health),
            Route("/health/live", pages.live),
            Route("/health/ready", pages.health),
            Route("/metrics", pages.metrics),
        ],
        middleware=[Middleware(Observed, keys=given.keys, metrics=metrics, log=lines)],
        exception_handlers={HTTPException: _wrong_place, ApiError: _refused},
        lifespan=lifespan,
    )
    app.state.engine = engine
    app.state.log = lines
    return app


class _Embeddings:
    """POST /v1/embeddings."""

    def __init__(self, engine: Engine, metrics: Metrics, settings: Settings) -> None:
        self._engine = engine
        self._metrics = metrics
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begin = time.perf_counter()
        note: Note = scope["zeroskip.note"]
        if self._engine.draining:
            raise stopping()
        kind = header(scope, b"content-type")
        if kind is not None and kind.partition(";")[0].strip().lower() not in ("application/json", ""):
            raise ApiError(415, f"The content type is {kind[:60]!r}; send application/json.", "unsupported_media_type")
        body = await read_body(receive, header(scope, b"content-length"), self._settings)
        loaded = self._engine.loaded
        asked = await self._understood(body, loaded)
        del body
        job, future = self._engine.submit(asked.inputs, loaded)
        note.texts = job.texts
        await self._wait(job, future, receive)
        if job.error is not None:
            note.error = repr(job.error)[:200]
            raise self._engine.explain(job, job.texts > 1)
        note.tokens, note.queue_s, note.truncated = job.tokens, job.started - job.arrived, job.cut or None
        content = await self._coded(job, asked, loaded)
        head = {"content-type": "application/json"}
        if job.cut:
            self._metrics.truncated(job.cut)
            head[TRUNCATED] = str(job.cut)
        await Response(content, headers=head)(scope, receive, send)
        self._metrics.latency(time.perf_counter() - begin)

    async def _understood(self, body: bytes, loaded: Loaded) -> Asked:
        if len(body) < _LARGE_BODY_BYTES:
            return understand(body, loaded.known, self._settings)
        return await asyncio.to_thread(understand, body, loaded.known, self._settings)

    async def _coded(self, job: Job, asked: Asked, loaded: Loaded) -> bytes:
        form: dict[str, Any] = {"as_base64": asked.base64, "model": loaded.known.name, "tokens": job.tokens}
        if job.vectors.size < _LARGE_ANSWER:
            return answers.embeddings(job.vectors, **form)
        return await asyncio.to_thread(answers.embeddings, job.vectors, **form)

    async def _wait(self, job: Job, future: asyncio.Future[Job], receive: Receive) -> None:
        """Until the vectors are there, or the client is not."""
        watch = asyncio.ensure_future(_disconnect(receive))
        try:
            both: set[asyncio.Future[Any]] = {future, watch}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not future.done():
                raise ClientGone
        finally:
            watch.cancel()
            if not future.done():
                self._metrics.gone()
                self._engine.abandon(job)


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class _Pages:
    """What is read with GET."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics

    async def models(self, request: Request) -> Response:
        return _json({"object": "list", "data": [self._described()]})

    async def model(self, request: Request) -> Response:
        found = self._described()
        if request.path_params["name"] != found["id"]:
            raise unknown_model(request.path_params["name"], found["id"])
        return _json(found)

    async def health(self, request: Request) -> Response:
        ready = self._engine.ready
        status = "ok" if ready else "stopping" if self._engine.draining else "failed"
        return _json({"status": status, "live": True, "ready": ready}, 200 if ready else 503)

    async def live(self, request: Request) -> Response:
        return _json({"live": True})

    async def metrics(self, request: Request) -> Response:
        return Response(self._metrics.page(), headers={"content-type": CONTENT_TYPE})

    def _described(self) -> dict[str, Any]:
        loaded = self._engine.loaded
        return {"id": loaded.known.name, "object": "model", "created": loaded.since, "owned_by": "zeroskip"}


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value).encode(), status, {"content-type": "application/json"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return Response(error.body(), error.status, {"content-type": "application/json", **error.headers})


async def _wrong_place(request: Request, error: Exception) -> Response:
    """A path or a method that is not there."""
    assert isinstance(error, HTTPException)
    what = f"{request.method} {request.url.path[:100]}"
    if error.status_code == 405:
        message, code = f"{what} is not possible; the method must be another one.", "method_not_allowed"
    else:
        message, code = f"There is no {what}; /v1/embeddings takes POST.", "not_found"
    headers = {"content-type": "application/json", **(error.headers or {})}
    return Response(error_body(error.status_code, message, code), error.status_code, headers)


__all__ = ["TRUNCATED", "create_app"]
