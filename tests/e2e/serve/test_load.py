"""Many clients at once, clients that leave, a full queue: no answer is lost, none is somebody else's."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import socket
import threading
import time

import numpy as np
import pytest

for name in ("starlette", "uvicorn", "prometheus_client", "httpx"):
    pytest.importorskip(name)

import httpx  # noqa: E402
from serving import NAME, in_process, read_answer  # noqa: E402

from zeroskip.serve import Settings  # noqa: E402

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Slow:
    """A model whose runs wait until they may go on, and that counts its texts."""

    def __init__(self, model):
        self._model = model
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.runs = []
        self.fail = False

    def vectors(self, ids):
        self.runs.append([item.tolist() for item in ids])
        self.entered.set()
        assert self.go.wait(20)
        if self.fail:
            raise MemoryError("no room")
        return self._model.vectors(ids)

    def __getattr__(self, name):
        return getattr(self._model, name)


@pytest.fixture
def slow(model):
    return Slow(model)


def settings(**changes):
    return Settings(name=NAME, log_format="off", **changes)


def wait_until(condition, seconds=10.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.005)


def embedding(text="a dog", **changes):
    return {"model": NAME, "input": text} | changes


def test_many_clients_each_get_their_own(running, model):
    """Single texts, lists and token ids, 32 clients at once, 640 requests, all different."""
    rng = np.random.default_rng(0)
    asked = []
    for number in range(640):
        rows = [rng.integers(4, 24, rng.integers(1, 38)).tolist() for _ in range(1 if number % 3 else 5)]
        asked.append(rows if number % 2 else [model.text.decode(row) for row in rows])

    async def client(session, mine):
        found = {}
        for number in mine:
            answer = await session.post("/embeddings", json=embedding(asked[number]))
            assert answer.status_code == 200, answer.text
            found[number] = [item["embedding"] for item in answer.json()["data"]]
        return found

    async def everybody():
        async with httpx.AsyncClient(
            base_url=running.url, timeout=60, limits=httpx.Limits(max_connections=32)
        ) as session:
            return await asyncio.gather(*(client(session, range(first, 640, 32)) for first in range(32)))

    found = {number: rows for part in asyncio.run(everybody()) for number, rows in part.items()}
    assert len(found) == 640
    ids = [
        [np.array(row, np.int32) for row in rows] if number % 2 else model.text.encode(rows)
        for number, rows in enumerate(asked)
    ]
    for number, rows in enumerate(ids):
        expected = model.vectors(rows)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True) if model.text.settings.normalize else 1
        np.testing.assert_allclose(found[number], expected, **CLOSE)


def test_texts_of_many_requests_share_a_run(slow):
    with in_process(slow, settings()) as (_, server):
        slow.go.clear()
        slow.entered.clear()
        slow.runs.clear()
        threads = [threading.Thread(target=server.post, args=(embedding([5, 6]),)) for _ in range(9)]
        threads[0].start()
        assert slow.entered.wait(10)
        for thread in threads[1:]:
            thread.start()
        wait_until(lambda: queued(server) == 8)
        slow.go.set()
        for thread in threads:
            thread.join(10)
        assert [len(run) for run in slow.runs] == [1, 8]


def queued(server):
    page = server.request("GET", "/metrics")[2].decode()
    return float(page.split("\nzeroskip_queue_texts ")[1].split("\n")[0])


def test_a_large_request_does_not_hold_up_a_small_one(slow):
    with in_process(slow, settings(batch_tokens=40)) as (_, server):
        slow.go.clear()
        slow.entered.clear()
        slow.runs.clear()
        large = threading.Thread(target=server.post, args=(embedding([[5] * 10] * 100),))
        large.start()
        assert slow.entered.wait(10)
        small = threading.Thread(target=server.post, args=(embedding([7] * 10),))
        small.start()
        wait_until(lambda: queued(server) == 97)
        slow.go.set()
        small.join(10)
        large.join(10)
        assert [7] * 10 in slow.runs[1]
        assert sum(map(len, slow.runs)) == 101


def test_texts_of_clients_that_left_are_not_run(slow):
    with in_process(slow, settings()) as (_, server):
        slow.go.clear()
        slow.entered.clear()
        slow.runs.clear()
        first = threading.Thread(target=server.post, args=(embedding([5]),))
        first.start()
        assert slow.entered.wait(10)
        connections = []
        for number in range(8):
            body = json.dumps(embedding([10 + number])).encode()
            head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            connections.append(socket.create_connection(("127.0.0.1", server.port), timeout=10))
            connections[-1].sendall(head + body)
        wait_until(lambda: queued(server) == 8)
        for connection in connections[1:]:
            connection.close()
        wait_until(lambda: queued(server) == 1)
        slow.go.set()
        assert read_answer(connections[0])[0] == 200
        connections[0].close()
        first.join(10)
        assert slow.runs == [[[5]], [[10]]]
        assert "zeroskip_abandoned_requests_total 7.0" in server.request("GET", "/metrics")[2].decode()
        assert server.post(embedding())[0] == 200


def test_a_full_queue_says_when_to_come_back(slow):
    with in_process(slow, settings(queue_texts=4, max_texts=4)) as (_, server):
        assert server.post(embedding(["a"] * 4))[0] == 200
        slow.go.clear()
        slow.entered.clear()
        threads = [threading.Thread(target=server.post, args=(embedding([5]),))]
        threads[0].start()
        assert slow.entered.wait(10)
        threads.append(threading.Thread(target=server.post, args=(embedding([[5]] * 3),)))
        threads[1].start()
        wait_until(lambda: queued(server) == 3)
        status, headers, answer = server.post(embedding(["a", "b"]))
        assert status == 429
        assert int(headers["retry-after"]) >= 1
        assert answer["error"]["type"] == "rate_limit_error"
        assert answer["error"]["code"] == "queue_full"
        slow.go.set()
        for thread in threads:
            thread.join(10)
        assert server.post(embedding(["a", "b"]))[0] == 200
        assert "zeroskip_rejected_texts_total 2.0" in server.request("GET", "/metrics")[2].decode()


def test_a_run_that_fails_is_told_and_the_next_one_works(slow):
    with in_process(slow, settings()) as (_, server):
        slow.fail = True
        status, _, answer = server.post(embedding(["a", "b"]))
        assert status == 500
        assert answer["error"]["type"] == "server_error"
        assert "MemoryError" in answer["error"]["message"]
        slow.fail = False
        assert server.post(embedding(["a", "b"]))[0] == 200
        assert queued(server) == 0


def test_texts_are_cut_to_the_positions_where_the_model_names_no_limit():
    import runtime_models as small

    import zeroskip

    tokenizer = small.word_tokenizer()
    tokenizer.model_max_length = 10**30
    loose = zeroskip.compile(small.bert(), tokenizer=tokenizer, **small.OPTIONS)
    loose.text.settings = dataclasses.replace(loose.text.settings, max_length=None)
    with in_process(loose, settings()) as (_, server):
        status, headers, found = server.post(embedding("the cat " * 50))
        assert status == 200
        assert headers["x-zeroskip-truncated"] == "1"
        assert found["usage"]["prompt_tokens"] == 40


def test_a_huge_text_leaves_the_loop_free(slow):
    """While some megabytes are tokenised, small requests are answered."""
    with in_process(slow, settings()) as (_, server):
        huge = threading.Thread(target=server.post, args=(embedding("the cat " * 800_000),))
        huge.start()
        answered = 0
        while huge.is_alive():
            assert server.post(embedding("a"))[0] == 200
            answered += 1
        huge.join(20)
        assert answered >= 3
