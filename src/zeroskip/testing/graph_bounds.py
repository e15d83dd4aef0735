"""Error bounds of the operations over the edges of a graph. They are derived, and have nothing to tune.

u is 2^-24, n the stored entries of a row; terms are w x, or x where there are no weights.

**sum** is a row of SpMM: each term is rounded once and meets at most n - 1 additions, so |Y - Y64| <= (n + 1) u sum|w
x| to first order, the one for the higher orders. **mean** divides once more: (n + 2) u sum|w x| / n. **max** and
**min** round each product once, and choosing is exact: the results differ by no more than the largest of those
roundings, u max|w x|, and the higher orders make it 2 u. Without weights they are exact. Each operation may be off by
2^-150 where it is subnormal.

**Edge softmax.** s' is the score as float32 has it (given, so exact). t = s - m, m the row's largest score, is
rounded once: off by u |t|. The exponential is off by 4 u relative (vecmath: 8e-8 is 1.4 u, libraries 1 or 2), so e^t
by a factor within 1 + u |t| + 4 u. Results below 2^-125 may be flushed to zero. Sums of n positive terms add n u.
Where a row is cut into parts or blocks, each part has its own m; its shift to the common one is a second exponential
and a product, as often as blocks follow each other: k = ceil(n / 48) + 1 at most of them, of exponents that add up to
no more than 2 |t| since the largest score only grows. Numerator and denominator both carry it; dividing rounds twice
(inverse, product). With T the largest |t| of the row that matters (terms beyond 88 are below 2^-125 and count as
that)

    |p - p64| <= p64 * r + 2^-124,    r = 2 (3 u T + 5 u (k + 1) + n u) + 4 u.

**gat.** Scores are computed: left + right is rounded once and leaky_relu once more, so a score is off by 2 u |s|, and
the largest |s| of a row gives d = 2 u S. An error d in every score changes a weight by a factor within e^(2 d), so r
grows by 2 d (and its higher orders: 2.2 d). Then a sum with weights that are off by r, and (n + 1 + 2 k) u for the
products, the additions and the shifts: (r + (n + 1 + 2 k) u) sum p|x| + 2^-124 sum|x|.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..formats import SparseMatrix
from ..ops import graph_reference as reference
from ..ops.reference import Float64

U = 2.0**-24
TINY = 2.0**-150
FLUSHED = 2.0**-124
_BLOCK = 48


def gspmm_bound(graph: SparseMatrix, x: Any, weights: Any, reduce: str) -> Float64:
    """What each element of gspmm may be off by."""
    n = reference.counts(graph)[:, None, None]
    sizes = np.abs(np.asarray(x, dtype=np.float64))
    factors = None if weights is None else np.abs(np.asarray(weights, dtype=np.float64))
    if reduce in ("max", "min"):
        if weights is None:
            return np.zeros((graph.shape[0], *sizes.shape[1:]))
        return 2 * U * reference.gspmm(graph, sizes, factors, "max") + TINY
    total = reference.gspmm(graph, sizes, factors, reduce)
    return (n + (2 if reduce == "mean" else 1)) * U * total + 2 * (n + 1) * TINY


def softmax_factor(graph: SparseMatrix, scores: Float64) -> Float64:
    """r of each row and head."""
    n = reference.counts(graph)[:, None]
    blocks = np.ceil(n / _BLOCK) + 1
    largest = reference.by_rows(graph, scores, np.maximum)
    spread = np.minimum(largest - reference.by_rows(graph, scores, np.minimum), 88.0)
    return 2 * (3 * U * spread + 5 * U * (blocks + 1) + n * U) + 4 * U


def edge_softmax_bound(graph: SparseMatrix, scores: Any) -> Float64:
    """What each element of edge_softmax may be off by."""
    found = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        factor = softmax_factor(graph, found)[graph.entries().rows]
        return np.asarray(reference.edge_softmax(graph, found) * factor + FLUSHED)


def sddmm_add_bound(graph: SparseMatrix, left: Any, right: Any) -> Float64:
    """One rounding."""
    return np.asarray(U * np.abs(reference.sddmm_add(graph, left, right)) + TINY)


def gat_bound(graph: SparseMatrix, x: Any, left: Any, right: Any, slope: float) -> Float64:
    """What each element of gat may be off by."""
    n = reference.counts(graph)[:, None]
    with np.errstate(invalid="ignore"):
        scores = reference.leaky_relu(reference.sddmm_add(graph, left, right), slope)
        largest = reference.by_rows(graph, np.where(np.isfinite(scores), np.abs(scores), 0.0), np.maximum)
        factor = softmax_factor(graph, scores) + 2.2 * 2 * U * largest
        factor = factor + (n + 1 + 2 * (np.ceil(n / _BLOCK) + 1)) * U
        sizes = np.abs(np.asarray(x, dtype=np.float64))
        total = reference.gspmm(graph, sizes, reference.edge_softmax(graph, scores))
        return np.asarray(factor[:, :, None] * total + FLUSHED * reference.gspmm(graph, sizes))


def assert_within(found: Any, expected: Float64, allowed: Float64) -> None:
    """Raise unless every element is within its bound; NaN and infinities must be where they are expected."""
    result = np.asarray(found, dtype=np.float64)
    assert result.shape == expected.shape, f"shape {result.shape}, expected {expected.shape}"
    with np.errstate(invalid="ignore"):
        fits = np.abs(result - expected) <= allowed
    same = (result == expected) | (np.isnan(result) & np.isnan(expected))
    wrong = ~np.where(np.isfinite(expected), fits, same)
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise AssertionError(
            f"{int(wrong.sum())} of {wrong.size} elements are outside the error bound; the first is {at}: "
            f"{result[at]!r}, expected {expected[at]!r} within {allowed[at]:.3g}"
        )
