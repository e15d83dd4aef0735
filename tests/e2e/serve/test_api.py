"""The server as clients see it: OpenAI's client, every form of input, and every wrong one."""

from __future__ import annotations

import base64
import json
import socket
import time

import numpy as np
import pytest

openai = pytest.importorskip("openai")
for name in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(name)

from serving import NAME, read_answer, serving  # noqa: E402

TEXTS = ["the cat sat on the big house", "a dog", "one two three and the small red tree ran", "blue"]
# Which texts share a run changes the order of sums: float32, two blocks, numbers below 1.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module")
def client(running):
    with openai.OpenAI(base_url=running.url, api_key="none", max_retries=0, timeout=30) as found:
        yield found


def vectors_of(answer):
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], dtype=np.float32)


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_texts_give_the_vectors_of_embed(client, model, form):
    options = {"encoding_format": form} if form else {}
    answer = client.embeddings.create(model=NAME, input=TEXTS, **options)
    if form == "base64":
        rows = [np.frombuffer(base64.b64decode(item.embedding), dtype="<f4") for item in answer.data]
        found = np.array(rows)
    else:
        found = vectors_of(answer)
    np.testing.assert_allclose(found, model.embed(TEXTS), **CLOSE)
    assert answer.model == NAME
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == sum(map(len, model.text.encode(TEXTS)))


def test_float_and_base64_are_the_same_numbers(running):
    numbers, coded = (
        running.post({"model": NAME, "input": "a dog", "encoding_format": form})[2]["data"][0]["embedding"]
        for form in ("float", "base64")
    )
    assert np.array_equal(np.array(numbers, np.float32), np.frombuffer(base64.b64decode(coded), "<f4"))


def test_one_string(client, model):
    answer = client.embeddings.create(model=NAME, input="the cat", user="somebody", dimensions=model.features)
    np.testing.assert_allclose(vectors_of(answer)[0], model.embed("the cat"), **CLOSE)


def test_token_ids_are_taken_as_they_are(client, model):
    ids = [list(map(int, item)) for item in model.text.encode(TEXTS)]
    answer = client.embeddings.create(model=NAME, input=ids)
    np.testing.assert_allclose(vectors_of(answer), model.embed(TEXTS), **CLOSE)
    answer = client.embeddings.create(model=NAME, input=ids[2])
    np.testing.assert_allclose(vectors_of(answer)[0], model.embed(TEXTS[2]), **CLOSE)


def test_models(client, running):
    assert [item.id for item in client.models.list().data] == [NAME]
    assert client.models.retrieve(NAME).owned_by == "zeroskip"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_long_texts_are_cut_and_it_is_said(running, model):
    long = "the cat " * 50_000
    status, headers, found = running.post({"model": NAME, "input": ["a dog", long, [5] * 3][:2]})
    assert status == 200
    assert headers["x-zeroskip-truncated"] == "1"
    np.testing.assert_allclose(found["data"][1]["embedding"], model.embed(long), **CLOSE)
    assert found["usage"]["prompt_tokens"] == 4 + 40
    status, headers, found = running.post({"model": NAME, "input": [5] * 100})
    assert headers["x-zeroskip-truncated"] == "1"
    assert found["usage"]["prompt_tokens"] == 40
    exactly = "the " * 38  # and two special tokens
    status, headers, _ = running.post({"model": NAME, "input": exactly})
    assert status == 200
    assert "x-zeroskip-truncated" not in headers
    metrics = running.request("GET", "/metrics")[2].decode()
    assert "zeroskip_truncated_texts_total 2.0" in metrics


def good(**changes):
    return {"model": NAME, "input": "a dog"} | changes


@pytest.mark.parametrize(
    ("body", "status", "param", "says"),
    [
        (b'{"model": "small", "input": "caf\xe9"}', 400, None, "UTF-8"),
        (b'{"model": "small", "input": "\\ud800"}', 400, "input", "surrogate"),
        (b'{"model": ', 400, None, "JSON"),
        (b"", 400, None, "JSON"),
        (b"[" * 100_000, 400, None, "nested"),
        (b"[1]", 400, None, "a list; it must be a JSON object"),
        (good(input=""), 400, "input", "empty string"),
        (good(input=[]), 400, "input", "empty list"),
        (good(input=["a", ""]), 400, "input", "input[1] is an empty string"),
        (good(input=[[5], []]), 400, "input", "input[1] is an empty list"),
        (good(input=7), 400, "input", "input is 7"),
        (good(input=None), 400, "input", "input is null"),
        (good(input={"text": "a"}), 400, "input", "an object"),
        (good(input=["a", 5]), 400, "input", "input[1] is 5"),
        (good(input=["a", ["b"]]), 400, "input", "input[1] is a list"),
        (good(input=[5, "a"]), 400, "input", "input[1] is 'a'"),
        (good(input=[5, True]), 400, "input", "input[1] is true"),
        (good(input=[[5], [5.5]]), 400, "input", "input[1][0] is 5.5"),
        (good(input=[5, 24]), 400, "input", "token id 24; ids of this model are 0 to 23"),
        (good(input=[-1]), 400, "input", "token id -1"),
        (good(input=[10**40]), 400, "input", "a very large number"),
        (good(input=["a"] * 301), 400, "input", "301 texts, a request may have 300"),
        (good(model="other"), 404, "model", "'other' does not exist; this server has 'small'"),
        (good(model=3), 400, "model", "model is 3"),
        ({"input": "a"}, 400, "model", "model is missing"),
        ({"model": NAME}, 400, "input", "input is missing"),
        (good(encoding_format="int8"), 400, "encoding_format", "'int8'"),
        (good(dimensions=16), 400, "dimensions", "have 32 numbers"),
        (good(dimensions="32"), 400, "dimensions", "'32'"),
        (good(user=5), 400, "user", "user is 5"),
        (good(inputs="a"), 400, "inputs", "'inputs' is no field"),
    ],
)
def test_wrong_bodies_are_refused_by_field(running, body, status, param, says):
    found, headers, answer = running.post(body)
    assert found == status
    assert headers["content-type"] == "application/json"
    assert set(answer) == {"error"}
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["param"] == param
    assert says in answer["error"]["message"]
    assert len(answer["error"]["message"]) < 300
    assert running.post(good())[0] == 200


def test_openai_client_sees_its_own_exceptions(client):
    with pytest.raises(openai.BadRequestError, match="empty string"):
        client.embeddings.create(model=NAME, input="")
    with pytest.raises(openai.NotFoundError, match="does not exist") as found:
        client.embeddings.create(model="other", input="a")
    assert found.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/embeddings", 405, "method_not_allowed"),
        ("GET", "/nowhere", 404, "not_found"),
        ("POST", "/health", 405, "method_not_allowed"),
    ],
)
def test_wrong_places(running, method, path, status, code):
    found, _, body = running.request(method, path)
    assert found == status
    assert json.loads(body)["error"]["code"] == code


def test_a_body_that_is_no_json_by_its_type(running):
    status, _, body = running.request("POST", "/v1/embeddings", good(), ["Content-Type: text/csv"])
    assert status == 415
    assert b"application/json" in body


def test_oversized_bodies(running):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    status, headers, body = running.raw(head + b"Content-Length: 99999999999999999999999\r\n\r\n")
    assert status in (400, 413)  # a parser may refuse the number itself
    status, headers, body = running.raw(head + b"Content-Length: 5000000\r\n\r\n")
    assert status == 413
    assert headers["connection"] == "close"
    assert json.loads(body)["error"]["code"] == "body_too_large"
    piece = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(head + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(17):
            connection.sendall(piece)
        assert read_answer(connection)[0] == 413
    assert running.post(good())[0] == 200


def test_a_slow_client_is_told_and_others_go_on(running):
    head = b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), timeout=30) as connection:
        connection.sendall(head + b"{")
        assert running.post(good())[0] == 200
        begin = time.monotonic()
        status, _, body = read_answer(connection)
        assert status == 408
        assert time.monotonic() - begin < 5
        assert json.loads(body)["error"]["code"] == "body_timeout"


def test_broken_requests(running):
    for data in (b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"POST /v1/embeddings HTTP/1.1\r\nContent-Length: x\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(4096):
                assert b" 200 " not in piece
    for _ in range(20):  # a client that goes away in the middle of its body
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as connection:
            connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert running.post(good())[0] == 200


def test_health_and_metrics(running):
    assert running.post(good())[0] == 200
    for path in ("/health", "/health/live", "/health/ready"):
        status, _, body = running.request("GET", path)
        assert status == 200
        assert json.loads(body)["live"] is True
    status, headers, body = running.request("GET", "/metrics")
    page = body.decode()
    assert headers["content-type"].startswith("text/plain")
    assert 'zeroskip_requests_total{path="/v1/embeddings",status="200"}' in page
    for name in (
        "request_seconds_bucket",
        "queue_texts 0.0",
        "batch_tokens_sum",
        "rejected_texts_total",
        "model_info{",
    ):
        assert f"zeroskip_{name}" in page


def test_an_id_of_the_client_comes_back(running):
    assert running.post(good(), ["X-Request-Id: my-7"])[1]["x-request-id"] == "my-7"
    odd = running.post(good(), ["X-Request-Id: a b<script>"])[1]["x-request-id"]
    assert odd
    assert "script" not in odd


def test_long_texts_are_refused_where_the_server_is_told_to(folder):
    with serving(folder, "--refuse-long") as found:
        status, _, answer = found.post(good(input=["a dog", "the cat " * 50]))
        assert status == 400
        assert answer["error"]["code"] == "context_length_exceeded"
        assert "input[1] has more than 40 tokens" in answer["error"]["message"]
        assert found.post(good(input=[5] * 41))[0] == 400
        assert found.post(good(input=[5] * 40))[0] == 200
