"""Graphs as lists of edges: SNAP's text files, OGB's zips, TUDataset's zips and the one text of many small graphs.

Row i of the matrix has the nodes that edges from i lead to; of an undirected graph both directions are there.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from ..._errors import DamagedFile
from ._entries import check_single, structure
from .smtx import Structure

Int64 = npt.NDArray[np.int64]

_UNREADABLE = (ValueError, EOFError, OverflowError, KeyError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)
# An archive that unpacks to more is no graph that fits here: ogbn-papers100M, the largest of them, has 25 GB.
_MOST_BYTES = 2**36
_MOST_NODES = 2**31 - 1


def read_edges(path: str | Path, *, undirected: bool = False, merge: bool = False) -> Structure:
    """An edge list as SNAP has them: two node numbers a line, # in front of comments, more columns are left out.

    Node numbers may have gaps: nodes without an edge are no rows. Their order stays.

    Args:
        path: Text, or gzip of it.
        undirected: Lay both directions out; a file of an undirected graph has each edge once.
        merge: An edge that is there several times (at several times of day, say) counts once; else it is refused.
    Raises:
        DamagedFile: If it cannot be read, has no edge, or has one twice.
    """
    path = Path(path)
    with _reading(path, "edge list"), _text(path) as file:
        pairs = _numbers(file, "#", None)
    if not pairs.size:
        raise DamagedFile(f"{path}: it has no edge; get the file again.")
    if int(pairs.min()) < 0:
        raise DamagedFile(f"{path}: edge {int(np.argmin(pairs.min(axis=1)))} has a node below 0; get the file again.")
    names, flat = np.unique(pairs, return_inverse=True)
    ends = flat.reshape(pairs.shape).astype(np.int64)
    return _graph(str(path), names.size, ends[:, 0], ends[:, 1], undirected=undirected, merge=merge)


def read_ogb(path: str | Path, *, undirected: bool, merge: bool = False) -> Structure:
    """The zip of a data set of the Open Graph Benchmark: `NAME/raw/edge.csv.gz` and the number of nodes beside it.

    Several graphs become one with blocks on its diagonal.

    Raises:
        DamagedFile: If it cannot be read, or its counts contradict each other.
    """
    path = Path(path)
    with _reading(path, "zip of OGB"), zipfile.ZipFile(path) as archive:
        pairs = _numbers(_member(archive, "/raw/edge.csv.gz"), "#", ",")
        nodes = _column(_member(archive, "/raw/num-node-list.csv.gz"))
        edges = _column(_member(archive, "/raw/num-edge-list.csv.gz"))
        if edges.sum() != pairs.shape[0] or edges.size != nodes.size:
            raise ValueError(f"it has {pairs.shape[0]} edges, its own list of numbers says {edges.sum()}")
        _check_nodes(nodes)
        graph = np.repeat(np.arange(nodes.size), edges)
        outside = np.flatnonzero((pairs.min(axis=1) < 0) | (pairs.max(axis=1) >= nodes[graph]))
        if outside.size:
            raise ValueError(f"edge {outside[0]} leads to a node that its graph does not have")
    shift = (np.cumsum(nodes) - nodes)[graph]
    ends = pairs + shift[:, None]
    return _graph(str(path), int(nodes.sum()), ends[:, 0], ends[:, 1], undirected=undirected, merge=merge)


def read_tu_zip(path: str | Path) -> Structure:
    """The zip of a TUDataset: `NAME_A.txt` (edges in both directions, from 1) and `NAME_graph_indicator.txt`.

    Raises:
        DamagedFile: If it cannot be read, or an edge leads from one graph to another.
    """
    path = Path(path)
    with _reading(path, "zip of TUDataset"), zipfile.ZipFile(path) as archive:
        ends = _numbers(_member(archive, "_A.txt"), "#", ",") - 1
        graph = _column(_member(archive, "_graph_indicator.txt"))
        nodes = graph.size
        if ends.size and not 0 <= int(ends.min()) <= int(ends.max()) < nodes:
            raise ValueError(f"an edge lies outside of its {nodes} nodes")
        across = np.flatnonzero(graph[ends[:, 0]] != graph[ends[:, 1]])
        if across.size:
            raise ValueError(f"edge {across[0]} leads from one graph to another")
    return _graph(str(path), nodes, ends[:, 0], ends[:, 1], undirected=False, merge=True)


def read_graph_list(path: str | Path) -> Structure:
    """Many small graphs in one text (or xz of it), one block on the diagonal each.

    The number of graphs; for each a line `nodes label`, then for each node `tag degree neighbours... attributes...`.

    Raises:
        DamagedFile: If it cannot be read, ends too soon, or a neighbour is not there.
    """
    path = Path(path)
    rows: list[int] = []
    cols: list[int] = []
    first = 0
    with _reading(path, "list of graphs"), _text(path) as file:
        lines = iter(file)
        for graph in range(int(next(lines, "").split()[0] or 0)):
            nodes = int(next(lines, "").split()[0])
            for node in range(nodes):
                words = next(lines, "").split()
                near = [int(word) for word in words[2 : 2 + int(words[1])]]
                if len(near) != int(words[1]) or not all(0 <= one < nodes for one in near):
                    raise ValueError(f"node {node} of graph {graph} has a neighbour that is not there")
                rows += [first + node] * len(near)
                cols += [first + one for one in near]
            first += nodes
        if next(lines, "").strip():
            raise ValueError("there is more text behind its last graph")
    if not first:
        raise DamagedFile(f"{path}: it has no node; get the file again.")
    ends = np.array([rows, cols], dtype=np.int64).reshape(2, -1)
    return _graph(str(path), first, ends[0], ends[1], undirected=False, merge=False)


def _graph(where: str, nodes: int, row: Int64, column: Int64, *, undirected: bool, merge: bool) -> Structure:
    shape = (nodes, nodes)
    if undirected:
        off = row != column
        row, column = np.concatenate([row, column[off]]), np.concatenate([column, row[off]])
    if not merge:
        check_single(where, row, column, shape)
    return structure(shape, row, column)


@contextlib.contextmanager
def _reading(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except DamagedFile:
        raise
    except IndexError:  # of words: a line is missing or too short
        raise DamagedFile(
            f"{path}: it is no {what} (a line is too short, or it ends too soon); get it again."
        ) from None
    except OSError as error:
        if error.errno is not None:
            raise DamagedFile(f"{path}: it cannot be read ({error.strerror}); check the path.") from None
        raise DamagedFile(f"{path}: it is no {what} ({error}); get it again.") from None
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__
        raise DamagedFile(f"{path}: it is no {what} ({reason}); get it again.") from None


def _text(path: Path) -> IO[str]:
    opened: Any = {".gz": gzip.open, ".xz": lzma.open}.get(path.suffix, open)
    found: IO[str] = opened(path, "rt", encoding="utf-8")
    return found


def _member(archive: zipfile.ZipFile, end: str) -> IO[str]:
    """The text of the one member whose name ends so."""
    found = [one for one in archive.infolist() if ("/" + one.filename).endswith(end)]
    if len(found) != 1:
        raise KeyError(f"it has {len(found)} members that end in {end}, not one")
    if found[0].file_size > _MOST_BYTES:
        raise ValueError(f"{found[0].filename} unpacks to {found[0].file_size} bytes, too many")
    raw = archive.open(found[0])
    return gzip.open(raw, "rt", encoding="utf-8") if end.endswith(".gz") else io.TextIOWrapper(raw, encoding="utf-8")


def _numbers(file: IO[str], comments: str, delimiter: str | None) -> Int64:
    """The first two columns."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of no data
        found = np.loadtxt(file, dtype=np.int64, comments=comments, delimiter=delimiter, usecols=(0, 1), ndmin=2)
    return found.reshape(-1, 2)


def _column(file: IO[str]) -> Int64:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found: Int64 = np.loadtxt(file, dtype=np.int64, ndmin=1).reshape(-1)
    if not found.size:
        raise ValueError("a list of numbers in it is empty")
    return found


def _check_nodes(nodes: Int64) -> None:
    if int(nodes.min()) < 1 or float(nodes.sum(dtype=np.float64)) > _MOST_NODES:
        raise ValueError(f"its graphs have {int(nodes.min())} nodes and more, in all at most {_MOST_NODES} fit")
