"""The server as a process: stop, reload, keys, logs, ports, folders that change under it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

for name in ("starlette", "uvicorn", "prometheus_client"):
    pytest.importorskip(name)

from serving import NAME, read_answer, serving  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip.cli import main  # noqa: E402


def embedding(text="a dog", **changes):
    return {"model": NAME, "input": text} | changes


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_it_finishes_what_it_has_and_stops_with_0(folder, sig):
    with serving(folder, "--batch-tokens", "40", "--body-timeout", "20") as server:
        body = json.dumps(embedding([[5] * 40] * 2048)).encode()
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        with (
            socket.create_connection(("127.0.0.1", server.port), timeout=30) as waiting,
            socket.create_connection(("127.0.0.1", server.port), timeout=30) as late,
        ):
            waiting.sendall(head + body[:-1])
            time.sleep(0.3)
            late.sendall(head + body[:-1])
            waiting.sendall(body[-1:])
            until = time.monotonic() + 10
            while b"zeroskip_batch_texts_count 0.0" in server.request("GET", "/metrics")[2]:
                assert time.monotonic() < until
            server.process.send_signal(sig)
            time.sleep(0.1)
            late.sendall(body[-1:])
            status, headers, content = read_answer(late)
            assert status == 503
            assert "retry-after" in headers
            assert json.loads(content)["error"]["code"] == "stopping"
            status, _, content = read_answer(waiting)
            assert status == 200
            assert len(json.loads(content)["data"]) == 2048
        assert server.process.wait(20) == 0


def test_the_grace_ends(folder):
    with (
        serving(folder, "--grace-s", "0.2", "--body-timeout", "60") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection,
    ):
        connection.sendall(b"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        time.sleep(0.3)
        begin = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begin < 10


def test_keys(folder, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# team a\nfirst-key\n\nzweiter schlüssel\n")
    with serving(folder, "--api-key-file", str(keys), env={"ZEROSKIP_API_KEY": "third"}) as server:
        for key in ("first-key", "third"):
            assert server.post(embedding(), [f"Authorization: Bearer {key}"])[0] == 200
        wrong = ["Bearer first", "Bearer first-key2", "Basic first-key", "Bearer", "Bearer # team a", "first-key"]
        for header in wrong:
            status, headers, answer = server.post(embedding(), [f"Authorization: {header}"])
            assert status == 401
            assert headers["www-authenticate"] == "Bearer"
            assert answer["error"]["code"] == "invalid_api_key"
        assert server.post(embedding())[0] == 401
        assert server.request("GET", "/v1/models")[0] == 401
        assert server.request("GET", "/metrics")[0] == 401
        assert server.request("GET", "/health")[0] == 200
        assert server.stop() == 0
        assert not any("key" in line for line in server.log if '"request"' in line)


def test_the_log_has_a_line_a_request_and_no_text(folder):
    with serving(folder) as server:
        server.post(embedding(["a secret dog", "the cat"]))
        server.post(embedding("secret", model="other"))
        assert server.stop() == 0
    lines = [json.loads(line) for line in server.log if line.startswith("{")]
    first, second = (line for line in lines if line["event"] == "request")
    assert {key: first[key] for key in ("method", "path", "status", "texts")} == {
        "method": "POST",
        "path": "/v1/embeddings",
        "status": 200,
        "texts": 2,
    }
    assert first["tokens"] == 9
    assert first["ms"] >= first["queue_ms"] >= 0
    assert first["id"] != second["id"]
    assert second["status"] == 404
    assert [line["event"] for line in lines if line["event"] != "request"] == ["stopping", "stopped"]
    assert not any("secret" in line for line in server.log)


def test_serving_imports_nothing_heavy(folder):
    code = (
        "import sys, zeroskip.serve, zeroskip.cli.serve\n"
        "from zeroskip.runtime.load import load\n"
        "model = load(sys.argv[1], mapped=False)\n"
        "app = zeroskip.serve.create_app(model); import zeroskip.serve.server\n"
        "print(sorted({'torch', 'transformers', 'scipy', 'matplotlib', 'safetensors'} & set(sys.modules)))\n"
        "print('zeroskip.runtime.compile' in sys.modules, 'zeroskip.bench' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split("\n")[:2] == ["[]", "False False"]


def test_the_folder_may_change_or_go(folder, tmp_path):
    """Cut short in place, overwritten, deleted: the process answers with what it has loaded, and says so on SIGHUP."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    with serving(copy) as server:
        expected = server.post(embedding())[2]["data"]
        with open(copy / "model.safetensors", "r+b") as file:
            file.write(b"\xff" * 4096)
            file.truncate(4096)
        for text in ("a dog", "red tree", "one two three"):
            assert server.post(embedding(text))[0] == 200
        server.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert server.post(embedding())[2]["data"] == expected
        shutil.rmtree(copy)
        assert server.post(embedding())[2]["data"] == expected
        assert server.stop() == 0
    assert any("reload failed" in line for line in server.log)


def test_sighup_takes_the_new_model(folder, tmp_path):
    import runtime_models as small

    place = tmp_path / "model"
    shutil.copytree(folder, place)
    with serving(place) as server:
        before = server.post(embedding())[2]["data"][0]["embedding"]
        other = zeroskip.compile(
            small.bert(hidden_size=16, intermediate_size=32), tokenizer=small.word_tokenizer(), **small.OPTIONS
        )
        other.save(place, overwrite=True)
        assert len(server.post(embedding())[2]["data"][0]["embedding"]) == len(before) == 32
        stop = threading.Event()
        statuses = []

        def client():
            while not stop.is_set():
                statuses.append(server.post(embedding(["a dog", "the cat"]))[0])

        asking = threading.Thread(target=client)
        asking.start()
        server.process.send_signal(signal.SIGHUP)
        until = time.monotonic() + 10
        while len(server.post(embedding())[2]["data"][0]["embedding"]) != 16:
            assert time.monotonic() < until
        stop.set()
        asking.join(10)
        assert set(statuses) == {200}
        found = server.post(embedding())[2]["data"][0]["embedding"]
        np.testing.assert_allclose(found, other.embed("a dog"), rtol=1e-4, atol=1e-5)


def test_no_port(folder, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", str(folder), "--port", str(port)]) == 2
    line = capsys.readouterr().err.strip().splitlines()
    assert len(line) == 1
    assert "in use" in line[0]
    assert main(["serve", str(folder), "--host", "203.0.113.1", "--port", "0"]) == 2
    assert "another --host" in capsys.readouterr().err


def test_no_permission(folder, capsys, monkeypatch):
    def refuse(self, address):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", refuse)
    assert main(["serve", str(folder), "--port", "80"]) == 2
    assert "no permission" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--port", "65536"], "no port"),
        (["--queue", "5"], "max_texts"),
        (["--api-key-file", "nowhere"], "not a file"),
        (["--threads", "0"], "below 1"),
    ],
)
def test_wrong_options(folder, capsys, words, says):
    assert main(["serve", str(folder), *words]) == 2
    assert says in capsys.readouterr().err


def test_empty_keys_do_not_open_the_server(folder, tmp_path, capsys, monkeypatch):
    empty = tmp_path / "keys"
    empty.write_text("# none\n\n")
    assert main(["serve", str(folder), "--api-key-file", str(empty)]) == 2
    assert "holds no key" in capsys.readouterr().err
    monkeypatch.setenv("ZEROSKIP_API_KEY", " ,")
    assert main(["serve", str(folder)]) == 2
    assert "ZEROSKIP_API_KEY holds no key" in capsys.readouterr().err


def test_what_is_no_encoder(tmp_path, capsys, monkeypatch):
    import importlib.util

    import runtime_models as small

    decoder = zeroskip.compile(small.llama(), tokenizer=small.word_tokenizer(special=False), **small.OPTIONS)
    decoder.save(tmp_path / "decoder")
    assert main(["serve", str(tmp_path / "decoder"), "--port", "0"]) == 1
    assert "makes no embeddings" in capsys.readouterr().err
    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "torch" else real(name, *rest))
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert f"zeroskip compile {tmp_path / 'nowhere'} -o COMPILED" in capsys.readouterr().err


def test_a_model_that_is_not_compiled_is_compiled_first(tmp_path):
    import runtime_models as small

    small.bert().save_pretrained(tmp_path / "plain")
    small.word_tokenizer().save_pretrained(tmp_path / "plain")
    with serving(tmp_path / "plain", env={"ZEROSKIP_CACHE_DIR": os.environ["ZEROSKIP_CACHE_DIR"]}) as server:
        assert server.post(embedding())[0] == 200
        assert server.stop() == 0


def test_a_log_that_nobody_reads_does_not_stop_the_answers(folder):
    """More lines than a pipe holds, its reader asleep."""
    with serving(folder, read_log=False) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            for _ in range(700):
                connection.sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n")
                assert read_answer(connection)[0] == 200
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
