"""Text to distil on: token ids with the places where sentences and paragraphs begin, cut at random into batches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

    Ints = np.ndarray[Any, np.dtype[Any]]

_WHOLE, _RUN = 0.45, 0.30  # of the samples: whole paragraphs, runs of sentences; the others are single sentences
_BREAK = re.compile(r"(?<=[.?!])\s+(?=[A-Z\"'(<])")  # where one sentence ends and another begins
_LEAST = 6  # tokens of a sentence that stands alone
_POOL = 64  # batches that are drawn and sorted by length together


@dataclass(frozen=True)
class Corpus:
    """Paragraphs of sentences of token ids, without special tokens, laid end to end.

    Args:
        ids: All tokens.
        sentences: Where each sentence begins in `ids`, and the end of the last.
        paragraphs: Where each paragraph begins in `sentences`, and the number of sentences.
        weights: Chance of each paragraph to be drawn; they add up to 1.
    """

    ids: Ints
    sentences: Ints
    paragraphs: Ints
    weights: Ints

    def draw(self, rng: np.random.Generator, count: int, limit: int) -> tuple[Ints, Ints]:
        """(starts, lengths) in `ids` of random crops of at most `limit` tokens: paragraphs, runs of their sentences,
        single sentences."""
        chosen = rng.choice(len(self.weights), size=count, p=self.weights)
        first, last = self.paragraphs[chosen].astype(np.int64), self.paragraphs[chosen + 1].astype(np.int64)
        kind = rng.random(count)
        inside = first + (rng.random(count) * (last - first)).astype(np.int64)
        begin = np.where(kind < _WHOLE, first, inside)
        run = begin + 1 + (rng.random(count) * (last - begin)).astype(np.int64)
        end = np.where(kind < _WHOLE, last, np.where(kind < _WHOLE + _RUN, run, begin + 1))
        starts = self.sentences[begin].astype(np.int64)
        return starts, np.minimum(self.sentences[end] - starts, limit)

    def whole(self, limit: int) -> tuple[Ints, Ints]:
        """Every paragraph, cut at `limit` tokens."""
        starts = self.sentences[self.paragraphs[:-1]].astype(np.int64)
        return starts, np.minimum(self.sentences[self.paragraphs[1:]] - starts, limit)

    def batches(self, rng: np.random.Generator, *, tokens: int, limit: int) -> Iterator[tuple[Ints, Ints]]:
        """(starts, lengths) of batches without end, each of crops of like length and about `tokens` tokens."""
        mean = max(1, int(self.draw(rng, 256, limit)[1].mean()) + 2)
        while True:
            drawn = self.draw(rng, max(1, _POOL * tokens // mean), limit)
            pool = cut(*drawn, tokens=tokens)
            for index in rng.permutation(len(pool)):
                yield pool[index]


def corpus_of(texts: Sequence[str], encode: Callable[[Sequence[str]], list[list[int]]], limit: int) -> Corpus:
    """Texts as a corpus; a long one is drawn more often than a short one, by the root of its length.

    Args:
        texts: Paragraphs; empty ones are left out.
        encode: Token ids of some strings, without special tokens.
        limit: Tokens that a crop can have.
    """
    parts = [[part for part in _BREAK.split(text.strip()) if part] for text in texts]
    encoded = iter(encode([part for each in parts for part in each]))
    ids: list[int] = []
    sentences, paragraphs = [0], [0]
    for each in parts:
        begin = len(ids)
        for _ in each:
            found = next(encoded)
            if len(ids) - sentences[-1] >= _LEAST and len(found) >= _LEAST:
                sentences.append(len(ids))
            ids += found
        if len(ids) > begin:
            sentences.append(len(ids))
            paragraphs.append(len(sentences) - 1)
    lengths = np.diff([sentences[at] for at in paragraphs])
    weights = np.sqrt(np.minimum(lengths, limit).astype(np.float64))
    return Corpus(np.array(ids), np.array(sentences), np.array(paragraphs), weights / max(weights.sum(), 1e-9))


def cut(starts: Ints, lengths: Ints, *, tokens: int) -> list[tuple[Ints, Ints]]:
    """Crops sorted by length and cut into batches of about `tokens` tokens, padding and two special tokens counted."""
    order = np.argsort(-lengths, kind="stable")
    starts, lengths = starts[order], lengths[order]
    found = []
    at = 0
    while at < len(starts):
        width = int(lengths[at]) + 2
        stop = at + max(1, tokens // width)
        found.append((starts[at:stop], lengths[at:stop]))
        at = stop
    return found


def assemble(
    ids: torch.Tensor, starts: Ints, lengths: Ints, *, before: int, after: int, pad: int, multiple: int = 1
) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids (B, T) int64 with a special token before and after each crop, and the mask (B, T) of real tokens.

    Args:
        ids: All tokens of the corpus, on the device where the batch shall be.
        starts, lengths: Of the crops.
        before, after, pad: Token ids.
        multiple: The width T is rounded up to one of these; what a GPU's attention likes is 8.
    """
    import torch

    first = torch.as_tensor(starts, device=ids.device)[:, None]
    length = torch.as_tensor(lengths, device=ids.device)[:, None]
    width = -(-(int(lengths.max()) + 2) // multiple) * multiple
    place = torch.arange(width, device=ids.device)[None]
    index = (first + place - 1).clamp_(0, len(ids) - 1)
    batch = ids[index].long()
    batch = torch.where(place == 0, before, torch.where(place == length + 1, after, batch))
    real = place < length + 2
    return torch.where(real, batch, pad), real
