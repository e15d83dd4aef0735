"""What attention means, in float64 and without speed: the definition that its kernels are compared with.

Only seen entries take part: a NaN or an infinity in a key or a value that no query sees has no effect. A query that
sees nothing gives zeros. Where a query sees a value that is infinite or NaN the result is NaN here; a kernel may give
the infinity instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels._masks import dense_mask

Float64 = npt.NDArray[np.float64]


class Attended(NamedTuple):
    """A result (B, H, n, dv) with what an error bound is made of, each (B, H, n).

    Attributes:
        out: The result.
        magnitude: The same sum with |v|, (B, H, n, dv).
        seen: Keys that each query sees.
        range: Its largest seen score less its smallest one.
        products: Its largest seen sum of |q k|, times the scale.
        largest: The largest |v| that it sees.
    """

    out: Float64
    magnitude: Float64
    seen: Float64
    range: Float64
    products: Float64
    largest: Float64


def attention(
    q: Any,
    k: Any,
    v: Any,
    masks: Sequence[Any],
    *,
    scale: float,
    causal: bool = False,
    lengths: Any = None,
) -> Attended:
    """Softmax over the seen keys of scale q k^T, times v, in float64.

    Args:
        q: (B, H, n, d).
        k: (B, Hkv, m, d).
        v: (B, Hkv, m, dv).
        masks: One, H or B H rules or sparse matrices, of which every stored entry is seen.
        scale: Of the scores.
        causal: As in `ops.attention`.
        lengths: (B,), as in `ops.attention`; None: all of m.
    """
    q, k, v = (np.asarray(array, dtype=np.float64) for array in (q, k, v))
    (batch, heads, queries, _), (kv_heads, keys) = q.shape, k.shape[1:3]
    valid = np.full(batch, keys) if lengths is None else np.asarray(lengths, dtype=np.int64)
    k, v = (np.repeat(array, heads // kv_heads, axis=1) for array in (k, v))
    seen = np.broadcast_to(
        dense_mask(masks, batch, heads, queries, keys, causal=causal, lengths=valid), (batch, heads, queries, keys)
    )
    if keys == 0:
        zeros = np.zeros((batch, heads, queries))
        out = np.zeros((*zeros.shape, v.shape[-1]))
        return Attended(out, out, zeros, zeros, zeros, zeros)
    with np.errstate(invalid="ignore", over="ignore"):
        scores = scale * (q @ k.swapaxes(-1, -2))
        products = abs(scale) * (np.abs(q) @ np.abs(k).swapaxes(-1, -2))
        shown = np.where(seen, scores, -np.inf)
        top = shown.max(axis=-1, keepdims=True)
        weights = np.where(seen, np.exp(scores - np.where(np.isfinite(top), top, 0.0)), 0.0)
        total = weights.sum(axis=-1, keepdims=True)
        weights = np.divide(weights, total, out=np.zeros_like(weights), where=total != 0)
        usable = np.where(np.isfinite(v), v, 0.0)
        out, magnitude = weights @ usable, weights @ np.abs(usable)
        touched = seen.astype(np.float64) @ (~np.isfinite(v)).astype(np.float64) > 0
        out[touched] = np.nan
        low = np.where(seen, scores, np.inf).min(axis=-1)
        spread = np.where(seen.any(axis=-1), top[..., 0] - low, 0.0)
        largest = np.where(seen, np.abs(usable).max(axis=-1)[:, :, None, :], 0.0).max(axis=-1)
    return Attended(
        out,
        magnitude,
        seen.sum(axis=-1).astype(np.float64),
        spread,
        np.where(seen, products, 0.0).max(axis=-1),
        largest,
    )
