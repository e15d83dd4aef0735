"""Patterns of attention that need no storage: a few numbers that say which keys a query sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument


@dataclass(frozen=True)
class Rule:
    """Which keys a query sees. Query i of a call stands at the key position i + keys - queries.

    Without any number everything is seen; global tokens alone are all that is seen.

    Args:
        window: Keys at most so far away, on either side; None for any distance.
        dilation: Within the window only every so many keys, counted from the query.
        global_tokens: So many first keys are seen by all, and so many first queries see all.
        causal: Nothing behind the query is seen, whatever else holds.
    """

    window: int | None = None
    dilation: int = 1
    global_tokens: int = 0
    causal: bool = False

    def __post_init__(self) -> None:
        least = {"window": 0, "dilation": 1, "global_tokens": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if name == "window" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value < low:
                raise InvalidArgument(f"Rule: {name} is {value!r}, it is a whole number of at least {low}; change it.")

    @property
    def windowed(self) -> bool:
        """Whether keys are seen by their distance, beside the global ones."""
        return self.window is not None or self.dilation > 1 or self.global_tokens == 0

    def contains(self, i: Any, j: Any) -> npt.NDArray[np.bool_]:
        """Whether the query at key position `i` sees key `j`; arrays broadcast."""
        i, j = np.asarray(i), np.asarray(j)
        found = (j < self.global_tokens) | (i < self.global_tokens)
        if self.windowed:
            near = (i - j) % self.dilation == 0
            found = found | (near if self.window is None else near & (np.abs(i - j) <= self.window))
        return np.asarray(found & (j <= i) if self.causal else found, dtype=np.bool_)
