"""The app in a process: socket, signals, graceful stop, reload."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Generator
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn

from .._errors import ZeroskipError
from ..runtime.compiled import CompiledModel
from .app import create_app
from .log import Log
from .settings import Settings

if TYPE_CHECKING:
    from starlette.applications import Starlette

# An idle connection is kept so long, and one whose request head does not come; proxies keep theirs for a minute.
KEEP_ALIVE_S = 75
_TICK_S = 0.02


def run(
    model: CompiledModel,
    settings: Settings,
    listener: socket.socket,
    *,
    reload: Callable[[], CompiledModel] | None = None,
    started: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what was accepted.

    Args:
        model: A compiled encoder.
        settings: Limits, keys, name.
        listener: A bound socket, from `sockets.bind`.
        reload: Loads the model again, on SIGHUP.
        started: Called when requests are answered.
    """
    log = Log(settings.log_format)
    app = create_app(model, settings, log=log)
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws="none",
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.grace_s)),
    )
    server = _Server(config, app, settings, log, reload, started)
    try:
        server.run(sockets=[listener])
    finally:
        log.close()


class _Server(uvicorn.Server):
    """uvicorn's server with signals of our own: it would stop listening at once and die of the signal in the end."""

    def __init__(
        self,
        config: uvicorn.Config,
        app: Starlette,
        settings: Settings,
        log: Log,
        reload: Callable[[], CompiledModel] | None,
        started: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self._app = app
        self._settings = settings
        self._log = log
        self._reload = reload
        self._started = started
        self._reloading = threading.Lock()
        self._idle: dict[Any, tuple[Any, float]] = {}
        self._drain: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        names = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
        before = {name: signal.signal(name, self.handle_exit) for name in names}
        try:
            yield
        finally:
            for name, handler in before.items():
                signal.signal(name, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A second signal to stop stops at once."""
        if sig == getattr(signal, "SIGHUP", None):
            threading.Thread(target=self._load_again, name="zeroskip-reload", daemon=True).start()
        elif self._app.state.engine.draining:
            self.force_exit = self.should_exit = True
        else:
            self._app.state.engine.draining = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._drain = asyncio.ensure_future(self._drained())
        if self._started is not None:
            self._started()

    async def on_tick(self, counter: int) -> bool:
        if counter % 10 == 0:
            self._close_idle()
        return await super().on_tick(counter)

    async def _drained(self) -> None:
        """Once it is told to stop: answer new requests with 503 until those accepted are done, or the grace is over."""
        engine = self._app.state.engine
        while not engine.draining:
            await asyncio.sleep(_TICK_S)
        self._log.write("stopping", waiting=len(self.server_state.tasks))
        until = time.monotonic() + self._settings.grace_s
        while self.server_state.tasks and time.monotonic() < until and not self.force_exit:
            await asyncio.sleep(_TICK_S)
        if self.server_state.tasks:
            self._log.write("gave up", "warning", requests=len(self.server_state.tasks))
            self.force_exit = True
            for task in list(self.server_state.tasks):
                task.cancel()
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets=sockets)
        self._app.state.engine.close()
        self._log.write("stopped")

    def _close_idle(self) -> None:
        """Close connections that send no whole request head; uvicorn's own clock stops at their first byte."""
        now = time.monotonic()
        idle: dict[Any, tuple[Any, float]] = {}
        for connection in list(self.server_state.connections):
            cycle = getattr(connection, "cycle", None)  # of its latest request
            if cycle is None or cycle.response_complete:
                before, since = self._idle.get(connection, (None, now))
                idle[connection] = (cycle, since if before is cycle else now)
                if now - idle[connection][1] > KEEP_ALIVE_S and connection.transport is not None:
                    connection.transport.close()
        self._idle = idle

    def _load_again(self) -> None:
        if self._reload is None or not self._reloading.acquire(blocking=False):
            return
        try:
            self._app.state.engine.replace(self._reload())
            self._log.write("reloaded", model=self._app.state.engine.loaded.known.name)
        except (ZeroskipError, OSError, MemoryError) as error:
            self._log.write("reload failed, the model before it stays", "error", error=str(error)[:500])
        finally:
            self._reloading.release()
