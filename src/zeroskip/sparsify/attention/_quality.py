"""How much of full attention a mask keeps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument, ShapeError
from ...formats import SparseMatrix
from ...ops.rules import Rule
from ._grid import Grid, Int64
from ._inputs import Float32, Kept, check_inputs, scores, softmax
from ._rules import check_positions

_ROWS = 256  # scores are made for so many queries at a time


def recall(
    mask: SparseMatrix | Rule | list[SparseMatrix] | list[Any], q: Any, k: Any, *, causal: bool = False
) -> float | npt.NDArray[np.float64]:
    """The share of the softmax weights of full attention that a mask keeps, as a mean over the queries.

    1 means that the mask loses nothing; the weights are those of scores q k^T / sqrt(d) over all keys, or over those up
    to the query.

    Args:
        mask: For every head the same one, or a list with one for each head; zeros that a block stores do not count.
        q: (n, d), or (heads, n, d).
        k: (m, d), or (key heads, m, d).
        causal: Full attention is causal; queries that see no key at all are left out of the mean.
    Returns:
        One number; where q has heads, one for each of them.
    """
    inputs = check_inputs("recall", q, k)
    heads, n, _ = inputs.q.shape
    m = inputs.k.shape[1]
    masks = mask if isinstance(mask, list) else [mask] * heads
    if len(masks) != heads:
        raise InvalidArgument(f"recall: mask holds {len(masks)} masks but q has {heads} heads; pass one for each head.")
    for one in masks:
        if isinstance(one, Rule):
            check_positions(Grid("recall", n, m, 1))
        elif one.shape != (n, m):
            raise ShapeError(f"recall: mask has shape {one.shape} but q and k make it {(n, m)}; pass one that fits.")
    found = np.array(
        [_recall(masks[head], inputs.q[head], inputs.k[inputs.key_head(head)], causal) for head in range(heads)]
    )
    return found if inputs.several else float(found[0])


def _recall(mask: SparseMatrix | Rule, q: Float32, k: Float32, causal: bool) -> float:
    n, m = len(q), len(k)
    at, keys = np.arange(n, dtype=np.int64) + (m - n), np.arange(m, dtype=np.int64)
    places = None if isinstance(mask, Rule) else _places(mask)
    kept_sum, queries = 0.0, 0
    for begin in range(0, n, _ROWS):
        here = slice(begin, min(begin + _ROWS, n))
        seen = keys <= at[here, None] if causal else np.ones((here.stop - begin, m), dtype=bool)
        weights = softmax(scores(q[here], k), seen)
        if places is None:
            assert isinstance(mask, Rule)
            kept = mask.contains(at[here, None], keys)
        else:
            kept = _slice(*places, here, m)
        kept_sum += float(weights[kept].sum())
        queries += int(seen.any(axis=1).sum())
    return kept_sum / queries if queries else 1.0


def _places(mask: SparseMatrix) -> tuple[Int64, Int64]:
    rows, cols, _ = mask.to_coo().entries()
    return rows, cols


def _slice(rows: Int64, cols: Int64, here: slice, m: int) -> Kept:
    """The rows of a mask as an array of bools."""
    low, high = np.searchsorted(rows, (here.start, here.stop))
    kept = np.zeros((here.stop - here.start, m), dtype=bool)
    kept[rows[low:high] - here.start, cols[low:high]] = True
    return kept
