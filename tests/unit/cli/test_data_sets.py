"""`zeroskip data list`, `show` and `get`: what they print, as people and as machines read it."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from zeroskip.cli.main import main
from zeroskip.datasets import FileSet, Remote, features, find, registry

EDGES = "# Directed\n0\t1\n1\t2\n2\t0\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with one graph of SNAP."""
    monkeypatch.setenv("ZEROSKIP_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "data" / "graphs").mkdir(parents=True)
    (tmp_path / "data" / "graphs" / "wiki-Talk.txt").write_text(EDGES)
    return tmp_path / "data"


def test_list_says_what_is_here_and_why_not(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    found = {one["name"]: one for one in document["datasets"]}
    assert set(found) == set(registry.names())
    assert document["unavailable"] == {}
    assert (found["snap"]["entries"], found["snap"]["size_bytes"], found["snap"]["why_not"]) == (1, len(EDGES), None)
    assert (found["dlmc"]["entries"], found["dlmc"]["downloads"]) == (0, 1)
    assert "zeroskip data get dlmc" in found["dlmc"]["why_not"]
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert "dlmc: dlmc/dlmc.tar.gz or dlmc/dlmc or dlmc/dlmc_sample.tar.xz is not in" in text
    assert all(one.licence in text for one in registry)


def test_list_takes_a_damaged_archive_as_a_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "dlmc").mkdir()
    (folder / "dlmc" / "dlmc.tar.gz").write_bytes(b"no archive")
    assert main(["data", "list", "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["datasets"]}
    assert "cannot be unpacked" in found["dlmc"]["why_not"]


def test_show_an_entry(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "show", "snap/wiki-Talk", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    wanted = features(find("snap/wiki-Talk")[0].matrix())
    assert shown == {
        "dataset": "snap",
        "name": "wiki-Talk",
        "kind": "graph",
        "model": None,
        "method": None,
        "level": None,
        **wanted,
        "shape": [3, 3],
    }
    assert main(["data", "show", "snap/wiki-Talk"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("snap/wiki-Talk (graph)\n3 x 3, 3 entries, sparsity 0.666667\n")


def test_show_several_entries(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "graphs" / "amazon0505.txt").write_text(EDGES)
    (folder / "graphs" / "roadNet-CA.txt").write_text(EDGES)
    assert main(["data", "show", "snap", "--most", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "... and 1 more; --most 0 prints all"
    assert main(["data", "show", "snap/*-*", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["entries"]
    assert [one["name"] for one in shown] == ["roadNet-CA", "wiki-Talk"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["show", "nothing"], 2, "nothing is not a file, and 'nothing' no data set; pass a file, or one of: dlmc"),
        (["show", "snap/x"], 1, "snap has no entry 'x'; it has 1, such as wiki-Talk"),
        (["show", "dlmc"], 1, "zeroskip data get dlmc"),
        (["get", "mediapipe"], 2, "mediapipe has nothing to download; see https://"),
        (["get", "snap/x"], 2, "snap has no file 'x' to download; it has ego-facebook,"),
        (["get", "nothing"], 1, "data set 'nothing' is not known; choose one of"),
    ],
)
def test_wrong_use(words: list[str], code: int, says: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", *words]) == code
    shown = capsys.readouterr()
    assert says in shown.err
    assert shown.out == ""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Serves `files` below a folder; the value is its address."""
    (tmp_path / "files").mkdir()
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "files"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()
        thread.join()


def test_get_brings_files_and_says_which_sums_are_on_trust(
    server: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        (tmp_path / "files" / name).write_text(EDGES)
    files = tuple(Remote(f"graphs/{name}.txt", f"{server}/{name}", name) for name in ("one", "two"))
    few = FileSet("few", "two graphs", "graph", "CC0-1.0", server, list, ("graphs/one.txt",), files)
    monkeypatch.setitem(registry._items, "few", few)
    assert main(["data", "get", "few/o*"]) == 0
    shown = capsys.readouterr()
    assert f"1 files to {folder}" in shown.err
    assert "this one is trusted from now on" in shown.out
    assert (folder / "graphs" / "one.txt").read_text() == EDGES
    assert main(["data", "get", "few", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["files"]
    assert [(one["new"], one["vouched"], one["size_bytes"]) for one in found] == [
        (False, True, len(EDGES)),
        (True, False, len(EDGES)),
    ]
    assert main(["data", "get", "few", "--to", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "graphs" / "two.txt").read_text() == EDGES
    (tmp_path / "files" / "two").write_text("altered")
    assert main(["data", "get", "few/two", "--again"]) == 1
    assert "and was not kept" in capsys.readouterr().err
    assert (folder / "graphs" / "two.txt").read_text() == EDGES
