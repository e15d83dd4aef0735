"""A server process on a small random encoder, and raw requests to it: what the tests of the server share."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

NAME = "small"


class Running:
    """A server process that answers.

    Attributes:
        url: Where it listens.
        port: Its port.
        process: The process.
    """

    def __init__(self, process, url, port, *, read_log=True):
        self.process = process
        self.url = url
        self.port = port
        self.log = []
        self.reader = threading.Thread(target=lambda: self.log.extend(process.stderr.read().splitlines()), daemon=True)
        if process is not None and read_log:
            self.reader.start()

    def request(self, method, path, body=None, headers=()):
        """(status, headers, body) of one request on a connection of its own."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: x",
            "Connection: close",
            f"Content-Length: {len(content)}",
            *headers,
        ]
        return self.raw("\r\n".join(lines).encode() + b"\r\n\r\n" + content)

    def post(self, body, headers=()):
        """(status, headers, JSON) of an embedding request."""
        status, found, content = self.request(
            "POST", "/v1/embeddings", body, ["Content-Type: application/json", *headers]
        )
        return status, found, json.loads(content)

    def raw(self, data):
        """(status, headers, body) of what the server says to some bytes."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(data)
            return read_answer(connection)

    def stop(self, sig=signal.SIGTERM):
        """Ask it to stop; its exit code."""
        self.process.send_signal(sig)
        code = self.process.wait(30)
        self.reader.join(10)
        return code


def read_answer(connection):
    """(status, headers, body) of one answer."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError(f"the server closed the connection after {got[:80]!r}")
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    while len(body) < int(headers.get("content-length", 0)):
        body += connection.recv(65536)
    return int(lines[0].split()[1]), headers, body


@contextlib.contextmanager
def serving(folder, *words, env=None, read_log=True):
    """`zeroskip serve FOLDER` as a process of its own."""
    command = [sys.executable, "-m", "zeroskip", "serve", str(folder), "--port", "0", "--name", NAME, "--json", *words]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **(env or {})}
    )
    try:
        said = ""
        while not said.rstrip().endswith("}"):
            line = process.stdout.readline()
            assert line, process.stderr.read()
            said += line
        url = json.loads(said)["url"]
        yield Running(process, url, int(url.split(":")[2].split("/")[0]), read_log=read_log)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)
        process.stdout.close()
        process.stderr.close()


@contextlib.contextmanager
def in_process(model, settings=None):
    """The app in a thread of this process, so that a test can slow its model down; (app, Running without process)."""
    import uvicorn

    from zeroskip.serve import Settings, create_app, sockets

    app = create_app(model, settings or Settings(name=NAME, log_format="off"))
    listener = sockets.bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    config = uvicorn.Config(app, log_config=None, log_level="critical", ws="none")
    running = uvicorn.Server(config)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        until = time.monotonic() + 20
        while not running.started and time.monotonic() < until:
            time.sleep(0.01)
        yield app, Running(None, f"http://127.0.0.1:{port}/v1", port)
    finally:
        running.should_exit = running.force_exit = True
        thread.join(20)
        listener.close()
