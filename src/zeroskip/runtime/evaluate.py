"""How good a decoder is: perplexity, and how it differs from another model on the same text."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from .batch import Batch, integers
from .text import Ids

if TYPE_CHECKING:
    from .compiled import CompiledModel

Float32 = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]
Logits = Callable[[Ids], Float32]

# Logits of this many positions are worked on at a time: a copy of all of them would be hundreds of megabytes.
_ROWS = 64


@dataclass(frozen=True)
class Perplexity:
    """Perplexity over windows of a text.

    Args:
        value: exp of the mean over windows of the mean negative log-likelihood of a window.
        windows: Windows that were scored.
        window: Tokens of a window; one prediction less is scored in each.
        tokens: Predictions in all.
        seconds: How long it took.
    """

    value: float
    windows: int
    window: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Agreement:
    """How a model differs from a reference on the same tokens.

    Args:
        kl: Mean Kullback-Leibler divergence from the reference to the model, in nats a prediction.
        top1: Share of predictions with the same likeliest token.
        tokens: Predictions in all.
    """

    kl: float
    top1: float
    tokens: int


def perplexity(
    model: CompiledModel,
    text: str | Sequence[int] | Any,
    *,
    window: int = 512,
    windows: int | None = 40,
    progress: Progress | None = None,
) -> Perplexity:
    """Perplexity of a decoder.

    Args:
        model: A compiled decoder.
        text: A text, tokenised in one call without special tokens, or token ids.
        window: Tokens of a window; each is scored on its own.
        windows: Most windows, from the beginning; None for all.
        progress: Called with ("perplexity", done, total).
    """
    start = time.perf_counter()
    cut = list(windows_of(ids_of(model, text), window, windows))
    losses = []
    for done, ids in enumerate(cut):
        losses.append(float(losses_of(model.logits([ids]), ids).mean()))
        if progress:
            progress("perplexity", done + 1, len(cut))
    mean = sum(losses) / len(losses)
    value = math.exp(mean) if mean < 700 else math.inf
    return Perplexity(value, len(cut), window, len(cut) * (window - 1), time.perf_counter() - start)


def agreement(
    model: CompiledModel,
    reference: Logits,
    text: str | Sequence[int] | Any,
    *,
    window: int = 512,
    windows: int | None = 8,
    progress: Progress | None = None,
) -> Agreement:
    """Kullback-Leibler divergence and top-1 agreement with a reference.

    Args:
        model: A compiled decoder.
        reference: Gives the reference's logits (tokens, vocabulary) for token ids.
        text: As in `perplexity`.
        window: Tokens of a window.
        windows: Most windows.
        progress: Called with ("agreement", done, total).
    """
    cut = list(windows_of(ids_of(model, text), window, windows))
    divergence, same, count = 0.0, 0, 0
    for done, ids in enumerate(cut):
        ours, theirs = model.logits([ids]), reference(ids)
        if theirs.shape != ours.shape:
            raise InvalidArgument(
                f"agreement: reference gives logits {theirs.shape}, the model {ours.shape}; compare one vocabulary."
            )
        for at in range(0, ids.size, _ROWS):
            p, q = log_softmax(theirs[at : at + _ROWS]), log_softmax(ours[at : at + _ROWS])
            divergence += float((np.exp(p) * (p - q)).sum())
        same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
        count += ids.size
        if progress:
            progress("agreement", done + 1, len(cut))
    return Agreement(divergence / count, same / count, count)


def ids_of(model: CompiledModel, text: str | Sequence[int] | Any) -> Ids:
    """Token ids of a text without special tokens, or checked token ids."""
    if isinstance(text, str):
        return model.text.encode([text], special=False, cut=False)[0]
    return Batch(integers("text", text), None, model.vocabulary).sequences()[0]


def windows_of(ids: Ids, window: int, windows: int | None) -> Iterator[Ids]:
    """Whole windows from the beginning."""
    if window < 2:
        raise InvalidArgument(f"perplexity: window is {window}, it must be at least 2; leave it out for 512.")
    if windows is not None and windows < 1:
        raise InvalidArgument(f"perplexity: windows is {windows}, it must be at least 1; leave it out for 40.")
    if ids.size < window:
        raise InvalidArgument(
            f"perplexity: the text has {ids.size} tokens, one window takes {window}; pass a longer text."
        )
    count = ids.size // window
    for index in range(count if windows is None else min(windows, count)):
        yield ids[index * window : (index + 1) * window]


def losses_of(logits: Float32, ids: Ids) -> npt.NDArray[np.float64]:
    """Negative log-likelihood of each token but the first, given logits (tokens, vocabulary)."""
    losses = np.empty(ids.size - 1, dtype=np.float64)
    for at in range(0, losses.size, _ROWS):
        rows = logits[at : min(at + _ROWS, losses.size)]
        top = rows.max(axis=1, keepdims=True)
        total = np.log(np.exp(rows - top).sum(axis=1, dtype=np.float64)) + top[:, 0]
        wanted = ids[at + 1 : at + 1 + rows.shape[0]]
        losses[at : at + rows.shape[0]] = total - rows[np.arange(rows.shape[0]), wanted]
    return losses


def log_softmax(logits: Float32) -> npt.NDArray[np.float64]:
    """Log-probabilities in float64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
