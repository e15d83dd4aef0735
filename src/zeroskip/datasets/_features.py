"""What a matrix looks like, in numbers that decide how fast a kernel is: how rows differ, what lies next to what."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import CSR
from .io._entries import distinct

Int64 = npt.NDArray[np.int64]

# Rows x columns. Each square divides the next one: the blocks of one are counted from those of the other.
SQUARES = (2, 4, 8, 16, 32, 64)
STRIPS = ((1, 8), (1, 16), (8, 1), (16, 1))
GROUPS = ((1, 4), (2, 4), (4, 8), (8, 16))


def features(a: CSR) -> dict[str, Any]:
    """Numbers of a matrix (M, K); a million entries take about half a second.

    Args:
        a: What it stores counts as an entry, whatever its value.
    Returns:
        shape, nnz, density, sparsity;
        row_mean, row_std, row_min, row_max, row_skew, and col_...: entries of a row, of a column. The standard
        deviation and the skewness (third standardised moment, 0 where all are alike) are those of the population;
        empty_rows, empty_cols;
        bandwidth: the largest distance of an entry from the main diagonal, |column - row|;
        row_span: mean over rows with entries of (last column - first column + 1) / K;
        neighbours: mean over entries of how many of the two places beside it in its row are entries, 0 to 2;
        similarity: mean over pairs of adjacent rows with any entry of the columns that both have, divided by those that
        one of them has (Jaccard);
        block_fill: for blocks "RxC", the share of entries in the blocks that hold any (1: blocks waste nothing), blocks
        at the edge being smaller;
        blocks: how many those are;
        nm: for "N:M", the share of aligned groups of M columns in a row that hold at most N entries (1: the matrix is
        N:M), the last group being smaller where M does not divide K.
        A mean over nothing (an empty matrix, a single row) is None.
    """
    rows, cols = a.places()
    rows, cols = rows.astype(np.int64, copy=False), cols.astype(np.int64, copy=False)
    m, k = a.shape
    per_row, per_col = np.diff(a.indptr), np.bincount(cols, minlength=k)
    return {
        "shape": (m, k),
        "nnz": a.nnz,
        "density": a.density,
        "sparsity": a.sparsity,
        **_moments("row", per_row),
        **_moments("col", per_col),
        "empty_rows": int((per_row == 0).sum()),
        "empty_cols": int((per_col == 0).sum()),
        "bandwidth": int(np.abs(cols - rows).max()) if a.nnz else None,
        "row_span": _span(a, cols),
        "neighbours": _neighbours(rows, cols),
        "similarity": _similarity(a.shape, rows, cols, per_row),
        **_blocks(a.shape, rows, cols),
        "nm": {f"{n}:{of}": _conformity(a.shape, rows, cols, n, of) for n, of in GROUPS},
    }


def _moments(name: str, counts: Int64) -> dict[str, Any]:
    exact = counts.astype(np.float64)
    mean, std = float(exact.mean()), float(exact.std())
    skew = float((((exact - mean) / std) ** 3).mean()) if std else 0.0
    low, high = int(counts.min()), int(counts.max())
    return {f"{name}_mean": mean, f"{name}_std": std, f"{name}_min": low, f"{name}_max": high, f"{name}_skew": skew}


def _span(a: CSR, cols: Int64) -> float | None:
    full = np.flatnonzero(np.diff(a.indptr))
    if not full.size:
        return None
    widths = cols[a.indptr[full + 1] - 1] - cols[a.indptr[full]] + 1
    return float(widths.mean()) / a.shape[1]


def _neighbours(rows: Int64, cols: Int64) -> float | None:
    pairs = int(((np.diff(cols) == 1) & (np.diff(rows) == 0)).sum())
    return 2 * pairs / rows.size if rows.size else None


def _similarity(shape: tuple[int, int], rows: Int64, cols: Int64, per_row: Int64) -> float | None:
    """An entry is shared with the next row where the key one row further down is there, too."""
    key = rows * shape[1] + cols
    above = key[: np.searchsorted(rows, shape[0] - 1)]  # the last row has none below
    found = np.searchsorted(key, above + shape[1])
    shared = key[np.minimum(found, key.size - 1)] == above + shape[1]
    both = np.bincount(rows[: above.size][shared], minlength=shape[0])[: shape[0] - 1]
    either = per_row[:-1] + per_row[1:] - both
    counted = either > 0
    return float((both[counted] / either[counted]).mean()) if counted.any() else None


def _blocks(shape: tuple[int, int], rows: Int64, cols: Int64) -> dict[str, Any]:
    """The fill and the number of blocks of every size."""
    fill: dict[str, float | None] = {}
    count: dict[str, int] = {}
    squares, down, right, size = [], rows, cols, 1
    for block in SQUARES:
        down, right = _distinct(shape, down // (block // size), right // (block // size), block, block)
        squares.append(((block, block), down, right))
        size = block
    strips = [((high, wide), *_distinct(shape, rows // high, cols // wide, high, wide)) for high, wide in STRIPS]
    for (high, wide), down, right in [*squares, *strips]:
        name = f"{high}x{wide}"
        areas = np.minimum(shape[0] - down * high, high) * np.minimum(shape[1] - right * wide, wide)
        count[name] = int(down.size)
        fill[name] = rows.size / int(areas.sum()) if down.size else None
    return {"block_fill": fill, "blocks": count}


def _distinct(shape: tuple[int, int], down: Int64, right: Int64, high: int, wide: int) -> tuple[Int64, Int64]:
    """The blocks that are met, each once: by marking them where their grid is small, else by sorting."""
    across = -(-shape[1] // wide)
    grid = across * -(-shape[0] // high)
    key = down * across + right
    if grid <= 16 * key.size:
        marks = np.zeros(grid, dtype=np.bool_)
        marks[key] = True
        key = np.flatnonzero(marks)
    else:
        key = distinct(key)
    return key // across, key % across


def _conformity(shape: tuple[int, int], rows: Int64, cols: Int64, n: int, of: int) -> float:
    across = -(-shape[1] // of)
    group = rows * across + cols // of  # in order, since entries are
    ends = np.flatnonzero(np.concatenate((group[1:] != group[:-1], [True]))) if group.size else group
    held = np.diff(ends, prepend=-1)
    return 1 - int((held > n).sum()) / (shape[0] * across)
