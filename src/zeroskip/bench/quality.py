"""How much a sparse model differs from the dense one: pure functions on callables and arrays.

A language model is a callable from token ids (T,) to logits (T, V); an embedder is a callable from texts to vectors (n,
D). Arrays may be NumPy or anything `numpy.asarray` takes; results are Python floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._errors import InvalidArgument, ShapeError

Floats = NDArray[np.float32]
Logits = Callable[[NDArray[np.int64]], Any]
Embedder = Callable[[Sequence[str]], Any]
_ROWS = 64  # of logits at a time: a vocabulary of 50,000 in float32 is 200 kB a row


@dataclass(frozen=True)
class LogitsComparison:
    """Two language models on the same windows.

    Args:
        perplexity_dense, perplexity_sparse: exp of the mean over windows of the mean negative log-likelihood.
        kl: Mean over positions of KL(dense || sparse), in nats.
        top1_agreement: Share of positions where both find the same token likeliest.
        windows, predictions: How many there were.
    """

    perplexity_dense: float
    perplexity_sparse: float
    kl: float
    top1_agreement: float
    windows: int
    predictions: int


@dataclass(frozen=True)
class EmbeddingComparison:
    """Two embedders on the same texts.

    Args:
        mean_cosine, min_cosine: Of each text's two vectors.
        neighbours_kept: Share of the `k` nearest neighbours by dense vectors that are also so by sparse ones.
        rank_correlation: Spearman's, of the similarities of all pairs of texts.
        texts, k: What was compared.
    """

    mean_cosine: float
    min_cosine: float
    neighbours_kept: float
    rank_correlation: float
    texts: int
    k: int


def windows(ids: Any, *, length: int = 512, count: int | None = 40) -> list[NDArray[np.int64]]:
    """The first `count` windows of `length` tokens, end to end, no overlap.

    Raises:
        InvalidArgument: If there is not one whole window.
    """
    row = np.asarray(ids, dtype=np.int64).reshape(-1)
    whole = len(row) // length
    if whole == 0:
        raise InvalidArgument(
            f"windows: the text has {len(row)} tokens, not one window of {length}; pass a longer text."
        )
    return [row[i * length : (i + 1) * length] for i in range(min(whole, count or whole))]


def log_likelihoods(logits: Any, ids: NDArray[np.int64]) -> NDArray[np.float64]:
    """The log-probability of each next token: `ids[1:]` under `logits[:-1]`, (T - 1,)."""
    values = _rows(logits, len(ids))
    out = np.empty(len(ids) - 1)
    for start in range(0, len(out), _ROWS):
        part = values[start : min(start + _ROWS, len(out))]
        out[start : start + len(part)] = _log_softmax(part)[
            np.arange(len(part)), ids[start + 1 : start + 1 + len(part)]
        ]
    return out


def perplexity(
    logits: Logits, texts: Iterable[NDArray[np.int64]], *, progress: Callable[[str, int, int], None] | None = None
) -> float:
    """exp of the mean over windows of the mean negative log-likelihood of each window's tokens but the first.

    Args:
        logits: (T,) ids to (T, V) logits.
        texts: Windows of token ids, such as `windows` gives.
        progress: Called with (stage, done, total).
    Raises:
        InvalidArgument: If there is no window.
    """
    every = list(texts)
    if not every:
        raise InvalidArgument("perplexity: there is no window; pass at least one.")
    losses = []
    for done, ids in enumerate(every, 1):
        losses.append(-float(log_likelihoods(logits(ids), ids).mean()))
        if progress:
            progress("perplexity", done, len(every))
    return math.exp(sum(losses) / len(losses))


def compare_logits(
    dense: Logits,
    sparse: Logits,
    texts: Iterable[NDArray[np.int64]],
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> LogitsComparison:
    """Perplexity of both, KL divergence and top-1 agreement, over the same windows.

    Raises:
        InvalidArgument: If there is no window.
        ShapeError: If the two do not give logits of one shape.
    """
    every = list(texts)
    if not every:
        raise InvalidArgument("compare_logits: there is no window; pass at least one.")
    losses = np.zeros((len(every), 2))
    divergence, same, count = 0.0, 0, 0
    for done, ids in enumerate(every):
        first, second = _rows(dense(ids), len(ids)), _rows(sparse(ids), len(ids))
        if first.shape != second.shape:
            raise ShapeError(
                f"compare_logits: dense gives {first.shape} but sparse {second.shape}; compare one vocabulary."
            )
        losses[done] = [-log_likelihoods(values, ids).mean() for values in (first, second)]
        kl, agree = _divergence(first[:-1], second[:-1])
        divergence, same, count = divergence + kl, same + agree, count + len(ids) - 1
        if progress:
            progress("compare", done + 1, len(every))
    dense_ppl, sparse_ppl = (math.exp(loss) for loss in losses.mean(0))
    return LogitsComparison(dense_ppl, sparse_ppl, divergence / count, same / count, len(every), count)


def _divergence(first: Floats, second: Floats) -> tuple[float, int]:
    """Sum over rows of KL(first || second), and in how many rows the likeliest token is the same."""
    total, same = 0.0, 0
    for start in range(0, len(first), _ROWS):
        p, q = _log_softmax(first[start : start + _ROWS]), _log_softmax(second[start : start + _ROWS])
        total += float((np.exp(p) * (p - q)).sum(dtype=np.float64))
        same += int((p.argmax(1) == q.argmax(1)).sum())
    return total, same


def _rows(logits: Any, count: int) -> Floats:
    values = np.asarray(logits, dtype=np.float32)
    if values.ndim == 3 and len(values) == 1:
        values = values[0]
    if values.ndim != 2 or len(values) != count:
        raise ShapeError(f"quality: logits have shape {values.shape} for {count} tokens; give (tokens, vocabulary).")
    return values


def _log_softmax(values: Floats) -> Floats:
    shifted = values - values.max(1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def cosines(dense: Any, sparse: Any) -> NDArray[np.float64]:
    """The cosine of each pair of rows."""
    first, second = _vectors(dense, sparse)
    result: NDArray[np.float64] = (_unit(first) * _unit(second)).sum(1)
    return result


def neighbours_kept(dense: Any, sparse: Any, *, k: int = 10) -> float:
    """Share of each row's `k` nearest other rows, by cosine of the dense vectors, that the sparse vectors find too.

    Raises:
        InvalidArgument: If there are not more than `k` rows.
    """
    first, second = _vectors(dense, sparse)
    if not 1 <= k < len(first):
        raise InvalidArgument(f"neighbours_kept: k is {k} for {len(first)} rows; pass 1 <= k < rows.")
    found = [_nearest(vectors, k) for vectors in (first, second)]
    kept = [len(np.intersect1d(a, b, assume_unique=True)) for a, b in zip(*found, strict=True)]
    return float(np.mean(kept)) / k


def rank_correlation(dense: Any, sparse: Any) -> float:
    """Spearman's correlation of the similarities of all pairs of rows, by dense vectors and by sparse ones.

    Raises:
        InvalidArgument: If there are fewer than three rows.
    """
    first, second = _vectors(dense, sparse)
    if len(first) < 3:
        raise InvalidArgument(f"rank_correlation: {len(first)} rows have too few pairs; pass at least 3.")
    upper = np.triu_indices(len(first), 1)
    ranks = [_ranks((_unit(v) @ _unit(v).T)[upper]) for v in (first, second)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def compare_embeddings(
    dense: Embedder | Any, sparse: Embedder | Any, texts: Sequence[str], *, k: int = 10
) -> EmbeddingComparison:
    """Cosine, neighbours kept and rank correlation of two embedders (or of vectors made already) on `texts`."""
    first = dense(texts) if callable(dense) else dense
    second = sparse(texts) if callable(sparse) else sparse
    each = cosines(first, second)
    return EmbeddingComparison(
        mean_cosine=float(each.mean()),
        min_cosine=float(each.min()),
        neighbours_kept=neighbours_kept(first, second, k=k),
        rank_correlation=rank_correlation(first, second),
        texts=len(each),
        k=k,
    )


def _vectors(dense: Any, sparse: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    first, second = np.asarray(dense, dtype=np.float64), np.asarray(sparse, dtype=np.float64)
    if first.ndim != 2 or first.shape != second.shape or not len(first):
        raise ShapeError(
            f"quality: vectors have shapes {first.shape} and {second.shape}; pass two of one shape (n, D)."
        )
    return first, second


def _unit(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return result


def _nearest(vectors: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    unit = _unit(vectors)
    similar = unit @ unit.T
    np.fill_diagonal(similar, -np.inf)
    return np.argsort(-similar, axis=1, kind="stable")[:, :k]


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 0, equal values sharing their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    result: NDArray[np.float64] = ((ends - counts + ends - 1) / 2)[place]
    return result
