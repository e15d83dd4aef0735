"""The generation loop: prefill, then one token at a time through the cache, with nothing else in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from .sampling import Sampling
from .text import Ids, Text

Stream = Callable[[str], object]


class Decoder(Protocol):
    """What the loop asks of a model."""

    def new_cache(self, max_tokens: int) -> Any:
        """Room for keys and values of so many tokens."""

    def next_logits(self, ids: Ids, cache: Any) -> npt.NDArray[np.float32]:
        """Append tokens to the cache; logits (vocabulary,) of what follows the last one."""


@dataclass(frozen=True)
class Generation:
    """What was generated, and how long it took.

    Args:
        text: The generated text, without the prompt; empty where there is no tokenizer.
        ids: The generated token ids, the one that ended it left out.
        prompt_tokens: Tokens of the prompt.
        prefill_s: From the call to the logits of the first token.
        decode_s: From there to the end; `decode_tokens` runs of the model.
        decode_tokens: Tokens that were run one at a time: one less than were drawn.
        stopped: Why it ended: `length`, `end` (the model said so), `stop` (a text of `stop`) or `context` (it is full).
    """

    text: str
    ids: list[int]
    prompt_tokens: int
    prefill_s: float
    decode_s: float
    decode_tokens: int
    stopped: str

    @property
    def prefill_tokens_per_s(self) -> float:
        return self.prompt_tokens / self.prefill_s if self.prefill_s else 0.0

    @property
    def decode_tokens_per_s(self) -> float:
        return self.decode_tokens / self.decode_s if self.decode_s else 0.0


def generate(
    model: Decoder,
    text: Text,
    ids: Ids,
    *,
    max_tokens: int,
    sampling: Sampling,
    stop: Sequence[str] = (),
    stream: Stream | None = None,
    context: int | None = None,
) -> Generation:
    """Continue some tokens.

    Args:
        model: The model.
        text: Decodes tokens; only needed for `stop`, `stream` and the text of the result.
        ids: The prompt; at least one token.
        max_tokens: Most tokens to generate.
        sampling: How tokens are drawn.
        stop: Texts that end the generation; they are not part of the result.
        stream: Called with each piece of text as soon as it is certain.
        context: Most tokens that the model can attend to.
    """
    room = max_tokens if context is None else min(max_tokens, context - ids.size)
    if room < 1:
        raise InvalidArgument(
            f"generate: the prompt has {ids.size} tokens but the model holds {context}; shorten the prompt."
        )
    writer = _Writer(text if text.files else None, stop, stream)
    rng = sampling.generator()
    start = time.perf_counter()
    cache = model.new_cache(ids.size + room)
    logits = model.next_logits(ids, cache)
    prefilled = time.perf_counter()
    drawn: list[int] = []
    runs = 0
    stopped = "length" if room == max_tokens else "context"
    while True:
        token = sampling.draw(logits, rng)
        if token in text.settings.stop_ids:
            stopped = "end"
            break
        drawn.append(token)
        if writer.push(drawn):
            stopped = "stop"
            break
        if len(drawn) >= room:
            break
        logits = model.next_logits(np.array([token], dtype=np.int32), cache)
        runs += 1
    ended = time.perf_counter()
    return Generation(
        text=writer.finish(drawn),
        ids=drawn,
        prompt_tokens=int(ids.size),
        prefill_s=prefilled - start,
        decode_s=ended - prefilled,
        decode_tokens=runs,
        stopped=stopped,
    )


class _Writer:
    """Decodes as tokens come.

    Text is certain once no later token can change it: a character may need several tokens, a stop text may have begun.
    """

    def __init__(self, text: Text | None, stop: Sequence[str], stream: Stream | None) -> None:
        if (stop or stream) and text is None:
            raise InvalidArgument(
                "generate: stop and stream need a tokenizer and the model has none; compile with tokenizer=..."
            )
        self._text = text
        self._stop = [item for item in stop if item]
        self._stream = stream
        self._sent = 0

    def push(self, ids: list[int]) -> bool:
        """Take note of a new token; whether a stop text is complete."""
        if self._text is None or not (self._stop or self._stream):
            return False
        whole = self._text.decode(ids)  # 50 us at 100 tokens, beside milliseconds of a step
        cut = self._cut(whole)
        if cut is not None:
            self._send(whole[:cut])
            return True
        held = max((len(item) - 1 for item in self._stop), default=0)
        sure = whole.rstrip("\ufffd")
        self._send(sure[: max(0, len(sure) - held)])
        return False

    def finish(self, ids: list[int]) -> str:
        """The whole text, cut where a stop text begins."""
        if self._text is None:
            return ""
        whole = self._text.decode(ids)
        cut = self._cut(whole)
        whole = whole if cut is None else whole[:cut]
        self._send(whole)
        return whole

    def _cut(self, whole: str) -> int | None:
        found = [at for at in (whole.find(item) for item in self._stop) if at >= 0]
        return min(found, default=None)

    def _send(self, sure: str) -> None:
        if self._stream and len(sure) > self._sent:
            self._stream(sure[self._sent :])
            self._sent = len(sure)
