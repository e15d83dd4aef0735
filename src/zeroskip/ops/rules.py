"""Masks of attention that are a rule: five numbers for a mask that nobody could store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from ..formats import CSR


@dataclass(frozen=True)
class Rule:
    """Which keys a query sees. Of n queries and m keys, query i sits at key position p = i + (m - n).

    Query p sees key j if j is a global token, or p is one, or the window holds j; and, if causal, only where j <= p.
    A rule without any term shows everything. With global tokens and no window and no dilation, the global tokens are
    all that is seen.

    Args:
        window: Keys with |p - j| <= window; None: at any distance.
        dilation: Within the window only keys with (p - j) % dilation == 0.
        global_tokens: The first g keys are seen by all, and the queries at these positions see all.
        causal: j <= p, applied to everything else.
    Raises:
        InvalidArgument: If a number is out of its range.
    """

    window: int | None = None
    dilation: int = 1
    global_tokens: int = 0
    causal: bool = False

    def __post_init__(self) -> None:
        if self.window is not None:
            object.__setattr__(self, "window", _whole("window", self.window, 0))
        object.__setattr__(self, "dilation", _whole("dilation", self.dilation, 1))
        object.__setattr__(self, "global_tokens", _whole("global_tokens", self.global_tokens, 0))
        if not isinstance(self.causal, bool | np.bool_):
            raise InvalidArgument(f"Rule: causal is {self.causal!r}, it is True or False; pass causal=True.")
        object.__setattr__(self, "causal", bool(self.causal))

    @property
    def windowed(self) -> bool:
        """Whether keys are seen by their distance, beside the global ones."""
        return self.window is not None or self.dilation > 1 or self.global_tokens == 0

    def contains(self, i: Any, j: Any) -> npt.NDArray[np.bool_]:
        """Whether the query at key position `i` sees key `j`, for arrays that broadcast."""
        i, j = np.asarray(i), np.asarray(j)
        seen = (j < self.global_tokens) | ((i >= 0) & (i < self.global_tokens))
        if self.windowed:
            near = (i - j) % self.dilation == 0
            if self.window is not None:
                near = near & (np.abs(i - j) <= self.window)
            seen = seen | near
        return np.asarray(seen & (j <= i) if self.causal else seen, dtype=np.bool_)

    def matrix(self, queries: int, keys: int) -> npt.NDArray[np.bool_]:
        """The whole mask, (queries, keys)."""
        return self.contains(np.arange(queries)[:, None] + (keys - queries), np.arange(keys)[None, :])

    def row(self, position: int, keys: int) -> npt.NDArray[np.int64]:
        """The keys that the query at key position `position` sees, ascending, found without looking at the others."""
        end = min(keys, position + 1) if self.causal else keys
        if 0 <= position < self.global_tokens:
            return np.arange(max(0, end), dtype=np.int64)
        first = np.arange(max(0, min(self.global_tokens, end)), dtype=np.int64)
        if not self.windowed:
            return first
        low, high = self.global_tokens, end
        if self.window is not None:
            low, high = max(low, position - self.window), min(end, position + self.window + 1)
        low += (position - low) % self.dilation
        return np.concatenate((first, np.arange(low, max(low, high), self.dilation, dtype=np.int64)))

    def intervals(self, first: int, last: int, keys: int) -> list[tuple[int, int]]:
        """Ranges [from, to) of keys, ascending and apart, outside of which no query at positions [first, last) sees
        anything."""
        if first >= last:
            return []
        end = min(keys, last) if self.causal else keys
        if (last > 0 and first < self.global_tokens) or (self.windowed and self.window is None):
            return [(0, end)] if end > 0 else []
        found = [(0, min(self.global_tokens, end))]
        if self.window is not None:
            found.append((max(self.global_tokens, first - self.window), min(end, last + self.window)))
        found = [(low, high) for low, high in found if low < high]
        if len(found) == 2 and found[0][1] == found[1][0]:
            return [(found[0][0], found[1][1])]
        return found

    def count(self, queries: int, keys: int) -> int:
        """How many pairs of a query and a key are seen; takes no memory to speak of."""
        total = 0
        for start in range(0, queries, 4096):
            position = np.arange(start, min(queries, start + 4096), dtype=np.int64) + (keys - queries)
            end = np.clip(np.minimum(keys, position + 1) if self.causal else np.full_like(position, keys), 0, None)
            seen = np.minimum(self.global_tokens, end)
            if self.windowed:
                low = np.full_like(position, self.global_tokens)
                high = end
                if self.window is not None:
                    low, high = np.maximum(low, position - self.window), np.minimum(end, position + self.window + 1)
                low = low + (position - low) % self.dilation
                seen = seen + np.maximum(0, -((low - high) // self.dilation))
            total += int(np.where((position >= 0) & (position < self.global_tokens), end, seen).sum())
        return total

    def csr(self, queries: int, keys: int) -> CSR:
        """The mask as stored entries, all of value 1: for kernels and libraries that take no rules."""
        rows = [self.row(i + keys - queries, keys) for i in range(queries)]
        indptr = np.zeros(queries + 1, dtype=np.int64)
        np.cumsum([row.size for row in rows], out=indptr[1:])
        indices = np.concatenate(rows).astype(np.int32 if keys <= 2**31 - 1 else np.int64)
        return CSR((queries, keys), indptr, indices, np.ones(indices.size, dtype=np.float32))


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least or value >= 2**62:
        raise InvalidArgument(
            f"Rule: {name} is {value!r}, it must be a whole number of at least {least}; pass {name}={least}."
        )
    return int(value)
