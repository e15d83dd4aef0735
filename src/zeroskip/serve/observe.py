"""Around every request: the API key, an id, one line in the log, and its count in the metrics."""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .errors import ApiError, ClientGone, error_body
from .keys import Keys
from .log import Log
from .metrics import Metrics

# Anybody may ask whether the server lives: who does is a load balancer that has no key.
_OPEN = ("/health", "/health/live", "/health/ready")
_COUNTED = ("/v1/embeddings", "/v1/models", "/metrics", *_OPEN)
_ID = re.compile(rb"[\w.:-]{1,100}", re.ASCII)
# What the log calls a request whose client left: no status was sent.
GONE = 499


@dataclass
class Note:
    """What the log says of a request besides its status."""

    texts: int | None = None
    tokens: int | None = None
    truncated: int | None = None
    queue_s: float | None = None
    error: str | None = None


class Observed:
    """ASGI middleware.

    Args:
        app: What answers.
        keys: API keys, one of which a request must bring; none for an open server.
        metrics: Where answers are counted.
        log: Where lines go.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[bytes], metrics: Metrics, log: Log) -> None:
        self._app = app
        self._keys = Keys(keys)
        self._metrics = metrics
        self._log = log
        self._start = os.urandom(4).hex()
        self._numbers = itertools.count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin = time.perf_counter()
        given = header(scope, b"x-request-id")
        name = given if given and _ID.fullmatch(given.encode("latin-1")) else f"{self._start}-{next(self._numbers)}"
        note = scope["zeroskip.note"] = Note()
        status = 0

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", name.encode())]
            await send(message)

        try:
            if scope["path"] not in _OPEN and not self._keys.admit(_raw(scope, b"authorization")):
                await _answer(sending, _no_key())
            else:
                await self._app(scope, receive, sending)
        except (ClientGone, asyncio.CancelledError) as gone:
            status = status or GONE
            if isinstance(gone, asyncio.CancelledError):
                raise
        except Exception as error:  # a bug: one request fails, the server lives on
            note.error = traceback.format_exc(limit=-3)[-1000:]
            if not status:
                await _answer(sending, ApiError(500, f"The server failed ({type(error).__name__}).", "internal_error"))
        finally:
            self._record(scope, name, status, note, time.perf_counter() - begin)

    def _record(self, scope: Scope, name: str, status: int, note: Note, spent: float) -> None:
        path = scope["path"]
        self._metrics.request(path if path in _COUNTED else "other", status)
        self._log.write(
            "request",
            "error" if status >= 500 and status != 503 else "info",
            id=name,
            method=scope["method"],
            path=path[:200],
            status=status,
            ms=round(spent * 1e3, 2),
            queue_ms=None if note.queue_s is None else round(note.queue_s * 1e3, 2),
            texts=note.texts,
            tokens=note.tokens,
            truncated=note.truncated,
            client=(scope.get("client") or (None,))[0],
            error=note.error,
        )


def header(scope: Scope, name: bytes) -> str | None:
    """A header of a request, or None."""
    found = _raw(scope, name)
    return None if found is None else found.decode("latin-1")


def _raw(scope: Scope, name: bytes) -> bytes | None:
    for key, value in scope["headers"]:
        if key == name:
            found: bytes = value
            return found
    return None


def _no_key() -> ApiError:
    return ApiError(
        401,
        "The API key is missing or wrong; send it as `Authorization: Bearer KEY`.",
        "invalid_api_key",
        headers={"WWW-Authenticate": "Bearer", "Connection": "close"},
    )


async def _answer(send: Send, error: ApiError) -> None:
    """Send an error outside of Starlette's own handling of them."""
    body = error_body(error.status, error.message, error.code, error.param)
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    pairs = [(key.lower().encode(), value.encode()) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
