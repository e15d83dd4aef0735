"""Graphs from lists of edges: what they hold, and what is refused."""

from __future__ import annotations

import gzip
import io
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zeroskip import DamagedFile
from zeroskip.datasets.io import Structure
from zeroskip.datasets.io.edges import read_edges, read_graph_list, read_ogb, read_tu_zip

SNAP = "# Nodes: 4 Edges: 4\n# FromNodeId\tToNodeId\n0\t7\n7\t0\n0\t3\n9\t9\n"


def dense(found: Structure) -> list[list[int]]:
    matrix = np.zeros(found.shape, dtype=int)
    matrix[np.repeat(np.arange(found.shape[0]), np.diff(found.indptr)), found.indices] = 1
    assert matrix.sum() == found.indices.size
    return matrix.tolist()


def put(path: Path, text: str) -> Path:
    data = text.encode()
    path.write_bytes({".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)(data))
    return path


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def ogb(path: Path, edges: str = "0,1\n1,2\n0,1\n", nodes: str = "3\n2\n", counts: str = "2\n1\n") -> Path:
    files = {"edge": edges, "num-node-list": nodes, "num-edge-list": counts}
    return zipped(path, {f"x/raw/{name}.csv.gz": gzip.compress(text.encode()) for name, text in files.items()})


def tu(path: Path, edges: str = "1, 2\n2, 1\n3, 4\n4, 3\n", graph: str = "1\n1\n2\n2\n") -> Path:
    return zipped(path, {"X/X_A.txt": edges.encode(), "X/X_graph_indicator.txt": graph.encode()})


def test_an_edge_list_of_snap(tmp_path: Path) -> None:
    wanted = [[0, 1, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]  # nodes 0, 3, 7, 9
    for name in ("a.txt", "a.txt.gz"):
        assert dense(read_edges(put(tmp_path / name, SNAP))) == wanted
    once = put(tmp_path / "b.txt", "5 8\n8 9\n")
    assert dense(read_edges(once, undirected=True)) == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]
    timed = put(tmp_path / "c.txt", "1 2 1000\n1 2 1001\n")
    assert dense(read_edges(timed, merge=True)) == [[0, 1], [0, 0]]


def test_a_zip_of_ogb_is_a_block_for_each_graph(tmp_path: Path) -> None:
    found = read_ogb(ogb(tmp_path / "a.zip"), undirected=False)
    assert found.shape == (5, 5)
    assert np.argwhere(dense(found)).tolist() == [[0, 1], [1, 2], [3, 4]]
    assert read_ogb(ogb(tmp_path / "a.zip"), undirected=True).indices.size == 6


def test_a_zip_of_tudataset(tmp_path: Path) -> None:
    found = read_tu_zip(tu(tmp_path / "a.zip"))
    assert np.argwhere(dense(found)).tolist() == [[0, 1], [1, 0], [2, 3], [3, 2]]


def test_a_list_of_graphs(tmp_path: Path) -> None:
    text = "2\n2 1\n0 1 1\n0 1 0 0.5 0.25\n1 1\n0 0\n"
    for name in ("a.txt", "a.txt.xz"):
        assert dense(read_graph_list(put(tmp_path / name, text))) == [[0, 1, 0], [1, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it has no edge"),
        ("# nothing\n", "it has no edge"),
        ("1 2\n1 2\n", r"row 0, column 1 \(from 0\) is there twice"),
        ("1\n", "it is no edge list"),
        ("1 2\n3 x\n", "it is no edge list .*x"),
        ("1 2\n3 4.5\n", "it is no edge list"),
        ("-1 2\n", "edge 0 has a node below 0"),
        ("1 99999999999999999999999\n", "it is no edge list"),
    ],
)
def test_a_bad_edge_list(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=rf"a\.txt: {says}") as caught:
        read_edges(put(tmp_path / "a.txt", text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edges": "0,1\n"}, "it has 1 edges, its own list of numbers says 3"),
        ({"edges": "0,1\n1,3\n0,1\n"}, "edge 1 leads to a node that its graph does not have"),
        ({"edges": "0,1\n1,-2\n0,1\n"}, "edge 1 leads to a node"),
        ({"edges": "0,1\n1,x\n0,1\n"}, "x"),
        ({"nodes": "0\n2\n"}, "its graphs have 0 nodes"),
        ({"nodes": "9999999999\n2\n"}, "in all at most"),
        ({"nodes": ""}, "a list of numbers in it is empty"),
        ({"counts": "3\n"}, "list of numbers"),
    ],
)
def test_a_bad_zip_of_ogb(change: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=rf"a\.zip: it is no zip of OGB \(.*{says}"):
        read_ogb(ogb(tmp_path / "a.zip", **change), undirected=False)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"edges": "1, 5\n"}, "lies outside of its 4 nodes"),
        ({"edges": "0, 1\n"}, "lies outside of its 4 nodes"),
        ({"edges": "2, 3\n"}, "edge 0 leads from one graph to another"),
        ({"graph": ""}, "is empty"),
    ],
)
def test_a_bad_zip_of_tudataset(change: dict[str, str], says: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=says):
        read_tu_zip(tu(tmp_path / "a.zip", **change))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is no list of graphs"),
        ("x\n", "it is no list of graphs"),
        ("0\n", "it has no node"),
        ("1\n2 0\n0 1 1\n", "it ends too soon"),
        ("1\n1 0\n0 1 1\n", "node 0 of graph 0 has a neighbour that is not there"),
        ("1\n1 0\n0 2 0\n", "node 0 of graph 0 has a neighbour"),
        ("1\n2 0\n0 2 1 1\n0 0\n", r"row 0, column 1 \(from 0\) is there twice"),
        ("1\n1 0\n0 0\n0 0\n", "there is more text behind its last graph"),
    ],
)
def test_a_bad_list_of_graphs(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=says):
        read_graph_list(put(tmp_path / "a.txt", text))


@pytest.mark.parametrize(
    "read", [read_edges, read_graph_list, read_tu_zip, lambda path: read_ogb(path, undirected=True)]
)
def test_files_that_are_cut_or_missing(read: Callable[[Path], Structure], tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"none\.zip: it cannot be read \(No such file"):
        read(tmp_path / "none.zip")
    for name, whole in (("a.txt.gz", gzip.compress(SNAP.encode())), ("a.txt.xz", lzma.compress(SNAP.encode()))):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(DamagedFile, match=rf"{name}: it is no"):
            read(tmp_path / name)
    file = io.BytesIO(ogb(tmp_path / "b.zip").read_bytes())
    (tmp_path / "b.zip").write_bytes(file.getvalue()[:200])
    with pytest.raises(DamagedFile, match=r"b\.zip: it is no"):
        read(tmp_path / "b.zip")
