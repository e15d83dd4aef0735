"""Graphs as sparse matrices: made from edges, normalised, put together, reordered; sums over several relations.

A graph is a CSR of shape (targets, sources): row i holds the edges that end in i. Offsets are 64-bit, columns
as narrow as their number allows, 64-bit where there are more than 2^31.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError, InvalidArgument, MissingDependency, ShapeError
from .._memory import available_bytes
from ..formats import CSR, SparseMatrix, is_torch
from ..formats._dtypes import Array
from ..kernels._base import Float32
from ._check import as_float32
from .gspmm import as_csr, gspmm

Int64 = npt.NDArray[np.int64]


def from_edges(src: Any, dst: Any, num_nodes: int | tuple[int, int], *, weights: Any = None) -> CSR:
    """The graph of edges src[e] -> dst[e], in any order.

    An edge that is there several times is one entry, whose value is the sum of theirs: without weights, how often it is
    there. Nodes need not have edges.

    Args:
        src: Source of each edge, integers (E,); NumPy or torch.
        dst: Target of each edge.
        num_nodes: Nodes, or (targets, sources) where these are different nodes.
        weights: Value of each edge (E,), floating; 1 where None.
    Returns:
        CSR (targets, sources) in float32.
    Raises:
        InvalidArgument: If an index is out of range, or the graph does not fit the memory that is available; says how
            many bytes it takes, before any of them is allocated.
    """
    targets, sources = (num_nodes, num_nodes) if isinstance(num_nodes, int | np.integer) else num_nodes
    first, second = _indices("src", src), _indices("dst", dst)
    if first.shape != second.shape:
        raise ShapeError(
            f"from_edges: src has {first.size} entries and dst {second.size}, each edge has both; pass as many."
        )
    check_memory("from_edges", edges_nbytes(first.size, targets, sources))
    for name, found, limit in (("src", first, sources), ("dst", second, targets)):
        check_range(name, found, limit)
    keys = second.astype(np.int64) * sources + first
    if weights is None:
        keys, counts = np.unique(keys, return_counts=True)
        data = counts.astype(np.float32)
    else:
        values = as_float32("from_edges", "weights", weights)
        if values.shape != first.shape:
            raise ShapeError(
                f"from_edges: weights have shape {values.shape} but there are {first.size} edges; pass one for each."
            )
        keys, place = np.unique(keys, return_inverse=True)
        data = np.bincount(place.ravel(), weights=values, minlength=keys.size).astype(np.float32)
    rows = keys // sources
    return _csr((targets, sources), rows, keys - rows * sources, data)


def edges_nbytes(edges: int, targets: int, sources: int) -> int:
    """Bytes that `from_edges` takes at most: keys, their sorted copy, their counts; offsets, columns, values."""
    index = 2 if sources <= 65536 else 4 if sources <= 2**31 - 1 else 8
    return 4 * 8 * edges + 2 * 8 * (targets + 1) + (index + 4 + 8) * edges


def check_memory(where: str, needed: int) -> None:
    """Refuse what does not fit the memory that is available."""
    free = available_bytes()
    if free is not None and needed > free:
        raise InvalidArgument(
            f"{where}: the graph takes {needed} bytes and {free} are available; "
            "split it, or use a machine with more memory."
        )


def _indices(name: str, array: Any) -> Array:
    found = array.detach().cpu().numpy() if is_torch(array) else np.asarray(array)
    if found.size and found.dtype.kind not in "iu":
        raise DtypeError(f"from_edges: {name} has dtype {found.dtype}, nodes are counted; pass integers.")
    if found.ndim != 1:
        raise ShapeError(f"from_edges: {name} has shape {found.shape}, it must be (edges,); flatten it.")
    return found if found.size else found.astype(np.int64)


def check_range(name: str, found: Array, limit: int) -> None:
    """Refuse a node that is not there."""
    if found.size and (found.min() < 0 or found.max() >= limit):
        at = int(np.flatnonzero((found < 0) | (found >= limit))[0])
        raise InvalidArgument(
            f"from_edges: {name}[{at}] is {found[at]}, there are {limit} nodes (0 to {limit - 1}); "
            "correct it or pass a larger num_nodes."
        )


def _csr(shape: tuple[int, int], rows: Array, cols: Array, data: Float32) -> CSR:
    """A CSR of entries that are sorted, none twice."""
    index = np.uint16 if shape[1] <= 65536 else np.int32 if shape[1] <= 2**31 - 1 else np.int64
    indptr = np.zeros(shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=shape[0]), out=indptr[1:])
    return CSR(shape, indptr, cols.astype(index), data)


def normalised_adjacency(graph: SparseMatrix, *, self_loops: bool = True, kind: str = "symmetric") -> CSR:
    """D^-1/2 (A + I) D^-1/2, or D^-1 (A + I), D the sums of the rows of A + I.

    Args:
        graph: A, (N, N); its values count.
        self_loops: Whether to add I: 1 where a node has no loop of its own, those that are there keep their values.
        kind: symmetric or row.
    Raises:
        ShapeError: If the graph is not square.
        InvalidArgument: If the kind is not known.
    """
    csr = as_csr("normalised_adjacency", graph)
    _check_square("normalised_adjacency", csr)
    if kind not in ("symmetric", "row"):
        raise InvalidArgument(f"normalised_adjacency: kind is {kind!r}, not known; choose one of: symmetric, row.")
    csr = with_self_loops(csr) if self_loops else csr
    rows, cols = csr.places()
    values = csr.decoded().astype(np.float64)
    sums = np.bincount(rows, weights=values, minlength=csr.shape[0])
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1.0 / (np.sqrt(sums) if kind == "symmetric" else sums)
    scale[sums == 0] = 0.0
    values = scale[rows] * values * (scale[cols] if kind == "symmetric" else 1.0)
    return CSR(csr.shape, csr.indptr, csr.indices, values.astype(np.float32))


def with_self_loops(graph: CSR, value: float = 1.0) -> CSR:
    """The graph with a loop of `value` at each node that has none."""
    rows, cols = graph.places()
    missing = np.ones(graph.shape[0], dtype=bool)
    missing[rows[rows == cols]] = False
    new = np.flatnonzero(missing)
    if not new.size:
        return graph
    keys = np.concatenate([rows * graph.shape[1] + cols, new * graph.shape[1] + new])
    order = np.argsort(keys, kind="stable")
    data = np.concatenate([graph.decoded(), np.full(new.size, value, dtype=np.float32)])[order]
    return _csr(graph.shape, keys[order] // graph.shape[1], keys[order] % graph.shape[1], data)


def block_diagonal(graphs: Sequence[SparseMatrix]) -> tuple[CSR, Int64]:
    """Many small graphs as one, without edges between them.

    Returns:
        The graph, and the first node of each of them, with the number of all nodes at the end: graph g is the nodes
        offsets[g] to offsets[g + 1].
    Raises:
        InvalidArgument: If there are no graphs.
        ShapeError: If one is not square.
    """
    parts = [as_csr("block_diagonal", graph) for graph in graphs]
    if not parts:
        raise InvalidArgument("block_diagonal: graphs is empty; pass at least one graph.")
    for part in parts:
        _check_square("block_diagonal", part)
    offsets = np.zeros(len(parts) + 1, dtype=np.int64)
    np.cumsum([part.shape[0] for part in parts], out=offsets[1:])
    starts = np.concatenate([[0], np.cumsum([part.nnz for part in parts])]).astype(np.int64)
    nodes = int(offsets[-1])
    index = np.uint16 if nodes <= 65536 else np.int32 if nodes <= 2**31 - 1 else np.int64
    indptr = np.concatenate([p.indptr[:-1] + start for p, start in zip(parts, starts, strict=False)] + [starts[-1:]])
    indices = np.concatenate([p.indices.astype(np.int64) + at for p, at in zip(parts, offsets, strict=False)])
    data = np.concatenate([part.decoded() for part in parts])
    return CSR((nodes, nodes), indptr, indices.astype(index), data), offsets


# What adding an element of a gathered row costs, in multiply-adds of a dense product. Counted, not measured: the row
# comes from memory, 4 bytes an element, while a dense product does 16 multiply-adds a cycle on AVX2.
_GATHER_COST = 20.0


def relation_spmm(
    graphs: Sequence[SparseMatrix], x: Any, weights: Any, *, reduce: str = "sum", order: str = "auto"
) -> Float32:
    """Y = sum over relations r of reduce(A_r) x W_r: the graph part of an R-GCN.

    Each relation is transformed first (x W_r, then summed over edges) or aggregated first (summed over edges, then the
    rows that have any are multiplied), whichever costs less by the count of its edges, rows and features.

    Args:
        graphs: One (targets, sources) a relation; their values are not looked at.
        x: (sources, F).
        weights: (R, F, G).
        reduce: sum or mean over the entries of a row, in each relation by itself.
        order: auto, transform_first or aggregate_first.
    Returns:
        (targets, G), float32, NumPy.
    """
    orders = ("auto", "transform_first", "aggregate_first")
    if order not in orders or reduce not in ("sum", "mean"):
        wrong = f"order is {order!r}" if order not in orders else f"reduce is {reduce!r}"
        raise InvalidArgument(f"relation_spmm: {wrong}; choose order of {', '.join(orders)}, reduce of sum, mean.")
    relations = [as_csr("relation_spmm", graph) for graph in graphs]
    source, matrices = as_float32("relation_spmm", "x", x), as_float32("relation_spmm", "weights", weights)
    if not relations or matrices.ndim != 3 or matrices.shape[0] != len(relations):
        raise ShapeError(
            f"relation_spmm: weights have shape {matrices.shape} and there are {len(relations)} graphs; "
            "pass at least one graph, and one matrix (F, G) for each."
        )
    shape = relations[0].shape
    if any(graph.shape != shape for graph in relations):
        raise ShapeError(f"relation_spmm: graphs have shapes {sorted({g.shape for g in relations})}; pass one shape.")
    if source.ndim != 2 or source.shape != (shape[1], matrices.shape[1]):
        raise ShapeError(
            f"relation_spmm: x has shape {source.shape}, graphs and weights make it {(shape[1], matrices.shape[1])}."
        )
    out = np.zeros((shape[0], matrices.shape[2]), dtype=np.float32)
    for graph, matrix in zip(relations, matrices, strict=True):
        if not graph.nnz:
            continue
        rows = np.flatnonzero(np.diff(graph.indptr))
        if order == "aggregate_first" or (order == "auto" and _aggregate_first(graph, rows.size, *matrix.shape)):
            part = CSR((rows.size, shape[1]), np.append(graph.indptr[rows], graph.nnz), graph.indices, graph.data)
            out[rows] += gspmm(part, source, reduce=reduce) @ matrix
        else:
            out += gspmm(graph, source @ matrix, reduce=reduce)
    return out


def _aggregate_first(graph: CSR, rows: int, width: int, result: int) -> bool:
    aggregate = _GATHER_COST * graph.nnz * width + rows * width * result
    transform = _GATHER_COST * graph.nnz * result + graph.shape[1] * width * result
    return aggregate <= transform


@dataclass(frozen=True)
class Reordering:
    """Another order of the nodes.

    Attributes:
        graph: The graph in that order.
        permutation: Node permutation[i] of the old graph is node i of the new one: x_new = x[permutation].
        time_s: What finding the order and rebuilding the graph took.
        span_before: Mean distance |i - j| of an edge, before.
        span_after: And after: less of it means that rows of x are found in the caches more often.
    """

    graph: CSR
    permutation: Int64
    time_s: float
    span_before: float
    span_after: float


def reorder(graph: SparseMatrix, method: str = "degree") -> Reordering:
    """Renumber the nodes so that rows of x which are used together lie together.

    It pays only where a graph is used often: what it took is in the result.

    Args:
        graph: (N, N).
        method: degree: the nodes with most entries first; rcm: reverse Cuthill-McKee, needs SciPy.
    """
    csr = as_csr("reorder", graph)
    _check_square("reorder", csr)
    started = time.perf_counter()
    if method == "degree":
        degrees = np.diff(csr.indptr) + np.bincount(csr.indices, minlength=csr.shape[1])
        order = np.argsort(-degrees, kind="stable").astype(np.int64)
    elif method == "rcm":
        order = _cuthill_mckee(csr)
    else:
        raise InvalidArgument(f"reorder: method is {method!r}, not known; choose one of: degree, rcm.")
    new = permuted(csr, order)
    return Reordering(new, order, time.perf_counter() - started, _span(csr), _span(new))


def permuted(graph: CSR, permutation: Array) -> CSR:
    """The graph whose node i is node permutation[i] of this one."""
    if not np.array_equal(np.sort(permutation), np.arange(graph.shape[0])):
        raise InvalidArgument(
            f"permuted: permutation is no order of the {graph.shape[0]} nodes; pass each of them once."
        )
    place = np.empty(graph.shape[0], dtype=np.int64)
    place[permutation] = np.arange(graph.shape[0])
    rows, cols = graph.places()
    keys = place[rows] * graph.shape[1] + place[cols]
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    return _csr(graph.shape, keys // graph.shape[1], keys % graph.shape[1], graph.decoded()[order])


def _cuthill_mckee(graph: CSR) -> Int64:
    try:
        from scipy import sparse
        from scipy.sparse import csgraph
    except ImportError:
        raise MissingDependency('reorder: method is "rcm", which needs SciPy; pip install scipy.') from None
    pattern = sparse.csr_matrix(
        (np.ones(graph.nnz, np.int8), graph.indices.astype(np.int32), graph.indptr), graph.shape
    )
    found: Int64 = csgraph.reverse_cuthill_mckee(pattern, symmetric_mode=False).astype(np.int64)
    return found


def _span(graph: CSR) -> float:
    rows, cols = graph.places()
    return float(np.abs(rows - cols).mean()) if rows.size else 0.0


def _check_square(where: str, graph: CSR) -> None:
    if graph.shape[0] != graph.shape[1]:
        raise ShapeError(f"{where}: graph has shape {graph.shape}, it must be square; pass (N, N).")
