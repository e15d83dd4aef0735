"""The embedding server under load: throughput over calling the model directly, latency, memory, cold start.

    python benchmarks/server_load.py COMPILED [--clients 64] [--requests 10000] [--rounds 3] [--json]

COMPILED is a folder that `zeroskip compile` wrote. Each round calls `model.embed` on all texts at once in a process
of its own, then starts `zeroskip serve` as another and sends the same texts from so many clients, each with one
request at a time over one connection, vectors as base64. Every vector is compared with the direct one of its text: no
number may be off by 1e-4, which only vectors of equal texts are to each other. The texts are the paragraphs of
WikiText-2's test split with their own lengths, again from the start where more are needed; they come from
ZEROSKIP_DATA_DIR.

Cold start is the time from starting the process to the first answer of /v1/embeddings, the server asked every 5 ms;
the median of --starts. Memory is VmRSS of the server after its first answer and after the load, VmHWM its peak. The
clients share the processor with the server: `client_share` is what part of all cores they took, which the direct run
did not have to give.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _common import parser

from zeroskip.datasets.text import paragraphs, wikitext2

TOLERANCE = 1e-4
_ASK_EVERY_S = 0.005
_DEADLINE_S = 120.0

_DIRECT = """
import json, sys, time
import numpy as np
import zeroskip
texts = json.load(open(sys.argv[2]))
model = zeroskip.load(sys.argv[1])
model.embed(texts[:64])
begin = time.perf_counter()
vectors = model.embed(texts, batch_size=256)
print(time.perf_counter() - begin)
np.save(sys.argv[3], vectors)
"""


@dataclass
class Server:
    """A server process that answered once."""

    port: int
    pid: int
    cold_start_s: float


@dataclass
class Load:
    """What the clients saw: the answers by request, their times, and the seconds from the first to the last."""

    answers: list[bytes]
    latencies_s: list[float]
    seconds: float
    client_cpu_s: float


def main() -> None:
    """Measure, check, print."""
    options_of = parser(__doc__)
    options_of.add_argument("model", metavar="COMPILED")
    options_of.add_argument("--clients", type=int, default=64)
    options_of.add_argument("--requests", type=int, default=10_000)
    options_of.add_argument("--rounds", type=int, default=3)
    options_of.add_argument("--starts", type=int, default=5, help="cold starts to take the median of")
    options_of.add_argument("--threads", type=int, help="threads of the model, direct and served")
    options_of.add_argument("--json", action="store_true")
    options = options_of.parse_args()
    if options.threads:
        os.environ["ZEROSKIP_NUM_THREADS"] = str(options.threads)
    lines = paragraphs(wikitext2("test"))
    texts = [lines[index % len(lines)] for index in range(options.requests)]
    found = measure(options.model, texts, options.clients, options.rounds, options.starts)
    print(json.dumps(found) if options.json else text_of(found))


def measure(model: str, texts: list[str], clients: int, rounds: int, starts: int) -> dict[str, Any]:
    """All rounds, direct and served in turn."""
    rows = []
    colds = []
    for _ in range(max(starts - rounds, 0)):
        with served(model, texts[0]) as server:
            colds.append(server.cold_start_s)
    for number in range(rounds):
        direct_s, expected = direct(model, texts)
        with served(model, texts[0]) as server:
            colds.append(server.cold_start_s)
            first = memory(server.pid)
            asyncio.run(load(server.port, texts[: 4 * clients], clients))
            seen = asyncio.run(load(server.port, texts, clients))
            row = row_of(texts, direct_s, seen) | {"rss_first_mb": first["VmRSS"]} | after(memory(server.pid))
        check(seen.answers, expected)
        print(f"round {number + 1} of {rounds}: {row['ratio']:.3f} of direct", file=sys.stderr)
        rows.append(row)
    middle = {key: statistics.median(row[key] for row in rows) for key in rows[0]}
    head = {"model": model, "clients": clients, "requests": len(texts), "rounds": rounds, "cores": os.cpu_count()}
    return head | middle | {"cold_start_s": statistics.median(colds), "cold_starts_s": colds, "rows": rows}


def direct(model: str, texts: list[str]) -> tuple[float, np.ndarray]:
    """Seconds of `model.embed`, and its vectors."""
    with tempfile.TemporaryDirectory() as folder:
        listed, vectors = Path(folder, "texts.json"), Path(folder, "vectors.npy")
        listed.write_text(json.dumps(texts))
        command = [sys.executable, "-c", _DIRECT, model, str(listed), str(vectors)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return float(done.stdout), np.load(vectors)


@contextlib.contextmanager
def served(model: str, text: str) -> Iterator[Server]:
    """A server process, ready; stopped in the end, and an error if it does not stop as it should."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "zeroskip",
        "serve",
        model,
        "--port",
        str(port),
        "--name",
        "m",
        "--log-format",
        "off",
    ]
    begin = time.perf_counter()
    process = subprocess.Popen([*command, "--quiet"])
    try:
        first_answer(process, port, request_of(text), begin)
        yield Server(port, process.pid, time.perf_counter() - begin)
    finally:
        process.terminate()
        code = process.wait(60)
    if code:
        raise SystemExit(f"the server ended with {code}")


def first_answer(process: subprocess.Popen[bytes], port: int, request: bytes, begin: float) -> None:
    """Ask until there is an answer."""
    while time.perf_counter() - begin < _DEADLINE_S and process.poll() is None:
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
            if connection.recv(1 << 16).startswith(b"HTTP/1.1 200"):
                return
        time.sleep(_ASK_EVERY_S)
    raise SystemExit("the server did not answer")


def request_of(text: str) -> bytes:
    """A whole HTTP request."""
    body = json.dumps({"model": "m", "input": text, "encoding_format": "base64"}).encode()
    lines = [
        "POST /v1/embeddings HTTP/1.1",
        "Host: m",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Client(asyncio.Protocol):
    """One connection with one request at a time. Sockets and slices alone, to leave the processor to the server."""

    def __init__(self, work: Iterator[tuple[int, bytes]], seen: Load, done: asyncio.Future[None]) -> None:
        self._work = work
        self._seen = seen
        self._done = done

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._next()

    def _next(self) -> None:
        self._got = bytearray()
        self._wanted = 0
        item = next(self._work, None)
        if item is None:
            self._transport.close()
            return
        self._number, request = item
        self._begin = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._wanted and (end := self._got.find(b"\r\n\r\n")) > 0:
            head = bytes(self._got[:end]).lower()
            length = head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]
            self._wanted = end + 4 + int(length)
        if self._wanted and len(self._got) >= self._wanted:
            self._seen.latencies_s.append(time.perf_counter() - self._begin)
            self._seen.answers[self._number] = bytes(self._got)
            self._next()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def load(port: int, texts: list[str], clients: int) -> Load:
    """Send each text once, from so many clients."""
    work = iter(list(enumerate(map(request_of, texts))))
    seen = Load([b""] * len(texts), [], 0.0, 0.0)
    loop = asyncio.get_running_loop()
    ends = [loop.create_future() for _ in range(clients)]
    cpu, begin = cpu_s(), time.perf_counter()
    for end in ends:
        await loop.create_connection(lambda end=end: Client(work, seen, end), "127.0.0.1", port)
    await asyncio.gather(*ends)
    seen.seconds = time.perf_counter() - begin
    seen.client_cpu_s = cpu_s() - cpu
    return seen


def cpu_s() -> float:
    """Processor time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def check(answers: list[bytes], expected: np.ndarray) -> None:
    """Every answer is there and holds the vector of its own text."""
    found = np.empty_like(expected)
    for number, answer in enumerate(answers):
        head, _, body = answer.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"request {number} was answered {head[:60]!r}")
        found[number] = np.frombuffer(base64.b64decode(json.loads(body)["data"][0]["embedding"]), dtype="<f4")
    away = np.abs(found - expected).max(axis=1)
    if not away.max() <= TOLERANCE:
        raise SystemExit(f"request {int(np.argmax(away))} was answered with a vector that is {away.max():.2g} off")


def row_of(texts: list[str], direct_s: float, seen: Load) -> dict[str, float]:
    """One round."""
    at = np.percentile(np.array(seen.latencies_s) * 1e3, [50, 95, 99])
    return {
        "direct_texts_s": len(texts) / direct_s,
        "served_texts_s": len(texts) / seen.seconds,
        "ratio": direct_s / seen.seconds,
        "p50_ms": float(at[0]),
        "p95_ms": float(at[1]),
        "p99_ms": float(at[2]),
        "client_share": seen.client_cpu_s / seen.seconds / (os.cpu_count() or 1),
    }


def memory(pid: int) -> dict[str, float]:
    """What the system says of a process's memory, in MB."""
    lines = [line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.endswith(" kB")]
    return {line[0].rstrip(":"): int(line[1]) * 1024 / 1e6 for line in lines}


def after(found: dict[str, float]) -> dict[str, float]:
    """The memory figures of a row."""
    return {"rss_mb": found["VmRSS"], "rss_anonymous_mb": found["RssAnon"], "rss_peak_mb": found["VmHWM"]}


def text_of(found: dict[str, Any]) -> str:
    """The result for people."""
    shape = (
        f"{found['clients']} clients, {found['requests']} requests, {found['rounds']} rounds, {found['cores']} cores"
    )
    served = f"{found['served_texts_s']:8.1f} texts/s, {found['ratio']:.3f} of direct"
    times = f"p50 {found['p50_ms']:.1f}, p95 {found['p95_ms']:.1f}, p99 {found['p99_ms']:.1f} ms"
    memory = f"{found['rss_first_mb']:.1f} MB after the first answer, {found['rss_mb']:.1f} after the load"
    more = f"({found['rss_anonymous_mb']:.1f} anonymous, peak {found['rss_peak_mb']:.1f})"
    lines = [
        f"{found['model']}: {shape}; every vector checked, medians",
        f"direct      {found['direct_texts_s']:8.1f} texts/s",
        f"served      {served}; the clients took {found['client_share']:.1%} of all cores",
        f"latency     {times}",
        f"memory      {memory} {more}",
        f"cold start  {found['cold_start_s']:.3f} s to the first answer",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
