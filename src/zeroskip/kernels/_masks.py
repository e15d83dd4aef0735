"""Attention masks in full, for references and for libraries that take nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import SparseMatrix

Bools = npt.NDArray[np.bool_]


def dense_mask(
    masks: Sequence[Any],
    batch: int,
    heads: int,
    queries: int,
    keys: int,
    *,
    causal: bool,
    lengths: npt.NDArray[np.int64],
) -> Bools:
    """Who sees what: (B or 1, H or 1, n, m), 1 where all sequences or heads are alike.

    Args:
        masks: One, H or B H sparse matrices or rules (whatever has `contains`).
        batch: B.
        heads: H.
        queries: n.
        keys: m.
        causal: Whether queries see no key after their own position.
        lengths: (B,), keys of each sequence; where n == m its queries too, where n < m the n queries are its last.
    """
    alike = bool((lengths == keys).all()) and len(masks) in (1, heads)
    found = []
    for b in range(1 if alike else batch):
        own = masks[b * heads : (b + 1) * heads] if len(masks) == batch * heads and len(masks) > heads else masks
        length = int(lengths[b])
        position = np.arange(queries) + (0 if queries == keys else length - queries)
        allowed = np.broadcast_to(np.arange(keys) < length, (queries, keys)).copy()
        if queries == keys:
            allowed[length:] = False
        if causal:
            allowed &= np.arange(keys) <= position[:, None]
        found.append(np.stack([_matrix(mask, position, keys) & allowed for mask in own]))
    return np.stack(found)


def _matrix(mask: Any, position: npt.NDArray[np.int64], keys: int) -> Bools:
    if not isinstance(mask, SparseMatrix):
        seen: Bools = mask.contains(position[:, None], np.arange(keys)[None, :])
        return seen
    found = mask.entries()
    dense = np.zeros(mask.shape, dtype=np.bool_)
    dense[found.rows, found.cols] = True
    return dense
