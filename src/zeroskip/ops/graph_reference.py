"""What the operations over the edges of a graph mean, in float64 and without speed.

A reduction goes over *stored* entries. An element of x that no entry meets does not matter, even if it is NaN. A row
without entries gives zeros. Weights are (nnz, H), x is (sources, H, F), scores are (nnz, H).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..formats import SparseMatrix
from .reference import Float64

_REDUCE = {"sum": np.add, "mean": np.add, "max": np.maximum, "min": np.minimum}


def gspmm(graph: SparseMatrix, x: Any, weights: Any = None, reduce: str = "sum") -> Float64:
    """Y[i, h] = reduce over stored j of w[e, h] * x[j, h]."""
    entries = graph.entries()
    terms = np.asarray(x, dtype=np.float64)[entries.cols]
    with np.errstate(invalid="ignore", over="ignore"):
        if weights is not None:
            terms = terms * np.asarray(weights, dtype=np.float64)[:, :, None]
        result = by_rows(graph, terms, _REDUCE[reduce])
    if reduce == "mean":
        result /= np.maximum(counts(graph), 1)[:, None, None]
    return result


def counts(graph: SparseMatrix) -> Float64:
    """Stored entries of each row."""
    return np.bincount(graph.entries().rows, minlength=graph.shape[0]).astype(np.float64)


def by_rows(graph: SparseMatrix, terms: Float64, reduce: Any) -> Float64:
    """Terms (nnz, ...) reduced over the entries of each row; zeros for rows without."""
    rows = graph.entries().rows
    result = np.zeros((graph.shape[0], *terms.shape[1:]))
    if rows.size:
        first = np.flatnonzero(np.diff(rows, prepend=-1))
        result[rows[first]] = reduce.reduceat(terms, first, axis=0)
    return result


def edge_softmax(graph: SparseMatrix, scores: Any) -> Float64:
    """e^(s - max) / sum over the entries of the row."""
    rows = graph.entries().rows
    found = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        shifted = np.exp(found - by_rows(graph, found, np.maximum)[rows])
        return np.asarray(shifted / by_rows(graph, shifted, np.add)[rows])


def sddmm_add(graph: SparseMatrix, left: Any, right: Any) -> Float64:
    """left[i] + right[j] for each entry."""
    entries = graph.entries()
    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(first[entries.rows] + second[entries.cols])


def leaky_relu(scores: Float64, slope: float) -> Float64:
    """s where s >= 0, slope * s below."""
    return np.where(scores >= 0, scores, slope * scores)


def gat(graph: SparseMatrix, x: Any, left: Any, right: Any, slope: float = 0.2) -> Float64:
    """softmax of leaky_relu(left[i] + right[j]) over the entries of a row, times x."""
    scores = leaky_relu(sddmm_add(graph, left, right), slope)
    return gspmm(graph, x, edge_softmax(graph, scores))
