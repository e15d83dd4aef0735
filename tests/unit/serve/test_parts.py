"""Keys, answers, settings and the log, without a server."""

from __future__ import annotations

import base64
import io
import json
import socket

import numpy as np
import pytest

from zeroskip import InvalidArgument
from zeroskip.serve import Settings, answers
from zeroskip.serve.keys import Keys, read_keys
from zeroskip.serve.log import Log
from zeroskip.serve.sockets import bind


def test_nine_digits_give_every_float32_back():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
    vector = bits[np.isfinite(bits)]
    found = json.loads(answers.embeddings(vector[None], as_base64=False, model='a "b"', tokens=3))
    assert np.array_equal(
        np.array(found["data"][0]["embedding"]).astype(np.float32).view(np.uint32) << 1, vector.view(np.uint32) << 1
    )
    assert found["model"] == 'a "b"'
    assert found["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


def test_base64_is_little_endian_float32():
    vectors = np.array([[1, -2], [0.5, 3]], np.float32)
    found = json.loads(answers.embeddings(vectors, as_base64=True, model="m", tokens=1))
    rows = [base64.b64decode(item["embedding"]) for item in found["data"]]
    assert rows[0] == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    assert [item["index"] for item in found["data"]] == [0, 1]


def test_keys_compare_the_whole_key():
    keys = Keys([b"one", "zwei-ü".encode()])
    assert keys.admit(b"Bearer one")
    assert keys.admit(b"bearer  one ")
    assert keys.admit("Bearer zwei-ü".encode())
    for wrong in (None, b"", b"Bearer", b"Bearer on", b"Bearer onee", b"Basic one", b"one"):
        assert not keys.admit(wrong)
    assert Keys([]).admit(None)


def test_keys_are_read_from_both_places(tmp_path, monkeypatch):
    monkeypatch.delenv("ZEROSKIP_API_KEY", raising=False)
    assert read_keys(None) == ()
    file = tmp_path / "keys"
    file.write_text("# ours\n a \n\nb\n")
    assert read_keys(file) == (b"a", b"b")
    monkeypatch.setenv("ZEROSKIP_API_KEY", "c, a")
    assert read_keys(file) == (b"c", b"a", b"b")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_keys(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"max_wait_ms": -1.0}, "max_wait_ms is -1"),
        ({"grace_s": float("nan")}, "grace_s is nan"),
        ({"queue_texts": 10}, "queue_texts of at least 2048"),
        ({"log_format": "xml"}, "log_format is 'xml'"),
        ({"keys": (b"",)}, "empty key"),
    ],
)
def test_settings_are_checked(changes, says):
    with pytest.raises(InvalidArgument, match=says):
        Settings(**changes)


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_log_entry_is_one_line_whatever_it_holds(form):
    stream = io.StringIO()
    log = Log(form, stream)
    log.write("request", path="/a\nb\r\u2028c \x1b[31m", texts=None, ms=1.5)
    log.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert "\x1b" not in lines[0]
    assert "texts" not in lines[0]
    if form == "json":
        assert json.loads(lines[0])["ms"] == 1.5


def test_asyncio_will_send_small_answers_at_once():
    """It sets TCP_NODELAY only on sockets that say TCP; without it an answer may wait 40 ms for an acknowledgement."""
    with bind("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
