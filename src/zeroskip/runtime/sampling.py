"""Choosing the next token from logits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn.

    Args:
        temperature: 0 takes the most likely token; above, logits are divided by it.
        top_k: Only so many of the most likely tokens; None for all.
        top_p: Only the most likely tokens that together have this probability; None for all.
        seed: Makes draws repeatable; None draws anew each time.
    """

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise InvalidArgument(
                f"generate: temperature is {self.temperature}, it must be 0 or above; pass 0 for the likeliest token."
            )
        if self.top_k is not None and self.top_k < 1:
            raise InvalidArgument(f"generate: top_k is {self.top_k}, it must be at least 1; leave it out for all.")
        if self.top_p is not None and not 0.0 < self.top_p <= 1.0:
            raise InvalidArgument(f"generate: top_p is {self.top_p}, it must lie in (0, 1]; leave it out for all.")
        if self.seed is not None and self.seed < 0:
            raise InvalidArgument(f"generate: seed is {self.seed}, it must be 0 or above; leave it out for none.")

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def draw(self, logits: npt.NDArray[np.float32], rng: np.random.Generator) -> int:
        """A token id from the logits (vocabulary,) of one position."""
        if self.temperature == 0.0:
            return int(logits.argmax())
        kept = np.arange(logits.size)
        if self.top_k is not None and self.top_k < logits.size:
            kept = np.argpartition(logits, -self.top_k)[-self.top_k :]
        scaled = logits[kept].astype(np.float64) / max(self.temperature, 1e-6)
        weights = np.exp(scaled - scaled.max())
        weights /= weights.sum()
        if self.top_p is not None and self.top_p < 1.0:
            order = np.argsort(-weights, kind="stable")
            # A token is in when those before it do not reach top_p yet, so that there is always one.
            count = int(np.searchsorted(np.cumsum(weights[order]), self.top_p)) + 1
            kept, weights = kept[order[:count]], weights[order[:count]]
            weights = weights / weights.sum()
        if not np.isfinite(weights).all():
            raise InvalidArgument("generate: the model's logits are not finite; check its weights.")
        return int(kept[rng.choice(weights.size, p=weights)])
