"""Downloads against a server of this test: whole, cut off and taken up, refused, altered, and on a full disk."""

from __future__ import annotations

import errno
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import DamagedFile, InvalidArgument, ZeroskipError
from zeroskip.datasets import Remote, _fetch
from zeroskip.datasets._fetch import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SUM = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `content`; drops the connection after `cut` bytes, `drops` times; keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.etag = CONTENT, '"one"'
        self.cut, self.drops = len(CONTENT), 0
        self.ranges, self.status, self.says_length = True, 200, True
        self.asked: list[str | None] = []

    def remote(self, sha256: str | None = None) -> Remote:
        return Remote("graphs/a.bin", f"http://127.0.0.1:{self.server_port}/a.bin", sha256=sha256)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        begin = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            begin = int(wanted.removeprefix("bytes=").rstrip("-"))
        if begin > len(server.content):
            self.send_error(416)
            return
        body = server.content[begin:]
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(server.content) - 1}/{len(server.content)}")
        if server.etag:
            self.send_header("ETag", server.etag)
        if server.says_length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if server.drops:
            server.drops -= 1
            body = body[: server.cut]
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(_fetch, "PAUSE_S", 0.0)
    with Server() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def left(folder: Path) -> set[str]:
    return {path.name for path in (folder / "graphs").iterdir()} if (folder / "graphs").is_dir() else set()


def test_a_file_comes_whole_and_once(server: Server, tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    found = fetch(server.remote(SUM), tmp_path, progress=lambda *step: steps.append(step))
    assert found.path.read_bytes() == CONTENT
    assert (found.sha256, found.size_bytes, found.new, found.vouched) == (SUM, len(CONTENT), True, True)
    assert steps[0] == ("a.bin", 0, len(CONTENT))
    assert steps[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    assert left(tmp_path) == {"a.bin"}
    again = fetch(server.remote(SUM), tmp_path)
    assert (again.new, again.vouched, len(server.asked)) == (False, True, 1)


def test_a_dropped_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    server.cut, server.drops = 70_000, 3
    assert fetch(server.remote(SUM), tmp_path).path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=70000-", "bytes=140000-", "bytes=210000-"]


def test_an_interrupted_run_is_taken_up_by_the_next(server: Server, tmp_path: Path) -> None:
    server.cut, server.drops = 100_000, 2
    with pytest.raises(ZeroskipError, match=r"broke off 2 times .*; 200000 bytes are kept, the same command goes on"):
        fetch(server.remote(SUM), tmp_path, attempts=2)
    assert left(tmp_path) == {"a.bin.part", "a.bin.part.json"}
    assert fetch(server.remote(SUM), tmp_path).path.read_bytes() == CONTENT
    assert server.asked[-1] == "bytes=200000-"
    assert left(tmp_path) == {"a.bin"}


@pytest.mark.parametrize("how", ["another file", "no ranges", "no name", "longer than the file"])
def test_a_part_that_does_not_fit_is_begun_again(how: str, server: Server, tmp_path: Path) -> None:
    server.cut, server.drops = 100_000, 1
    with pytest.raises(ZeroskipError):
        fetch(server.remote(), tmp_path, attempts=1)
    if how == "another file":
        server.content, server.etag = CONTENT[::-1], '"two"'
    elif how == "no ranges":
        server.ranges = False
    elif how == "no name":
        (tmp_path / "graphs" / "a.bin.part.json").write_text("{}")
    else:
        (tmp_path / "graphs" / "a.bin.part").write_bytes(CONTENT + b"more")
    assert fetch(server.remote(), tmp_path).path.read_bytes() == server.content


def test_a_server_that_does_not_say_how_long(server: Server, tmp_path: Path) -> None:
    server.says_length = False
    assert fetch(server.remote(SUM), tmp_path).path.read_bytes() == CONTENT


def test_a_sum_that_differs_is_an_error_and_nothing_stays(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1] + b"x"
    with pytest.raises(DamagedFile, match=rf"has SHA-256 [0-9a-f]{{64}}, not {SUM}, and was not kept"):
        fetch(server.remote(SUM), tmp_path)
    assert left(tmp_path) == set()


def test_the_first_download_is_trusted_and_a_later_one_must_be_the_same(server: Server, tmp_path: Path) -> None:
    first = fetch(server.remote(), tmp_path)
    assert not first.vouched
    assert json.loads((tmp_path / "checksums.json").read_text()) == {"graphs/a.bin": SUM}
    assert fetch(server.remote(), tmp_path, again=True).vouched
    server.content, server.etag = CONTENT[::-1], '"two"'
    with pytest.raises(DamagedFile, match="and was not kept"):
        fetch(server.remote(), tmp_path, again=True)
    assert first.path.read_bytes() == CONTENT
    first.path.write_bytes(b"altered")
    with pytest.raises(DamagedFile, match="pass --again"):
        fetch(server.remote(), tmp_path)
    (tmp_path / "checksums.json").write_text("[]")
    with pytest.raises(DamagedFile, match="is no list of sums"):
        fetch(server.remote(), tmp_path)


@pytest.mark.parametrize(("status", "says", "asked"), [(404, r"is refused \(404", 1), (503, "broke off 3 times", 3)])
def test_a_server_that_refuses(status: int, says: str, asked: int, server: Server, tmp_path: Path) -> None:
    server.status = status
    with pytest.raises(ZeroskipError, match=says):
        fetch(server.remote(), tmp_path, attempts=3)
    assert len(server.asked) == asked


def test_nobody_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fetch, "PAUSE_S", 0.0)
    with pytest.raises(ZeroskipError, match=r"broke off 2 times .*refused"):
        fetch(Remote("a", "http://127.0.0.1:9/a"), tmp_path, attempts=2)
    with pytest.raises(InvalidArgument, match="is no address of http or https"):
        fetch(Remote("a", "file:///etc/hostname"), tmp_path)


def test_no_space_left(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Usage:
        free = 1000

    with monkeypatch.context() as patched:
        patched.setattr(_fetch.shutil, "disk_usage", lambda _: Usage)
        with pytest.raises(ZeroskipError, match=r"no space left for .*300000 bytes are to come, 1000 are free"):
            fetch(server.remote(SUM), tmp_path)

    def full(*_: Any) -> bool:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(_fetch, "_copy", full)
        with pytest.raises(ZeroskipError, match=r"no space left for .*the same command then goes on"):
            fetch(server.remote(SUM), tmp_path)
    assert fetch(server.remote(SUM), tmp_path).path.read_bytes() == CONTENT


def test_a_folder_that_cannot_be_written(server: Server, tmp_path: Path) -> None:
    (tmp_path / "graphs").write_text("a file")
    with pytest.raises(ZeroskipError, match="cannot be written"):
        fetch(server.remote(SUM), tmp_path)


def test_two_at_once(server: Server, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "graphs").mkdir()
    with open(tmp_path / "graphs" / "a.bin.part", "ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ZeroskipError, match="another process is writing"):
            fetch(server.remote(SUM), tmp_path)
