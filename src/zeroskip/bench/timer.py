"""Timing several candidates against each other, so that what the machine does meanwhile hits all of them alike.

Each round gives every candidate one slice of time, in an order that rotates. Between two engines is a pause, until no
thread of this process is running any more: the workers of an engine spin for a while after its last call and would take
cores from the next one. On a Zen 3 with 2 cores, 2026-11: torch 4 ms, ONNX Runtime 30 ms, NumPy's OpenBLAS 106 ms, our
own pool below 0.1 ms. A slice begins with calls that are not counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ..ops.choice import SETTLE_MAX_S, settle

__all__ = ["MIN_CALLS", "SETTLE_MAX_S", "Candidate", "Samples", "interleave", "settle"]

T = TypeVar("T")
MIN_CALLS = 3
# A call that takes longer is made once a slice, and only before the first is there one that does not count.
LONG_S = 0.1


@dataclass(frozen=True)
class Candidate:
    """Something to time.

    Args:
        name: Label.
        calls: One callable, or several that do the same on different copies of the weights: they are called in turn, so
            that with enough copies no weight is in a cache when it is needed.
        before: Called before each call, outside of its time.
        engine: Whose threads it runs on. Those of one engine take their slices one after the other, without a pause.
        clock: Makes a call and gives its seconds, where another device has a clock of its own.
    """

    name: str
    calls: Sequence[Callable[[], object]]
    before: Callable[[], object] | None = None
    engine: str | None = None
    clock: Callable[[Callable[[], object]], float] | None = None


@dataclass
class Samples:
    """Seconds of single calls."""

    times_s: list[float] = field(default_factory=list)
    rounds: int = 0

    def quantile(self, share: float) -> float:
        """The sample below which `share` of them lie, interpolated; 0.5 is the median."""
        ordered = sorted(self.times_s)
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        return ordered[low] + (place - low) * (ordered[high] - ordered[low])

    @property
    def median_s(self) -> float:
        return self.quantile(0.5)


def interleave(
    candidates: Sequence[Candidate],
    *,
    budget_s: float,
    rounds: int = 7,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Samples]:
    """Time candidates in rounds.

    Args:
        candidates: What to time; each gets the same share of the time.
        budget_s: About how long to take for all of them, pauses not counted. Each slice makes at least three calls, or
            one of those that take longer than a tenth of a second, so slow ones take longer.
        rounds: Slices per candidate.
    Returns:
        Samples in the order of `candidates`.
    """
    results = [Samples() for _ in candidates]
    if not candidates:
        return results
    slice_s = max(budget_s / rounds / len(candidates), 0.001)
    turns = [0] * len(candidates)
    engines: dict[object, list[int]] = {}
    for index, candidate in enumerate(candidates):
        engines.setdefault(candidate.engine or index, []).append(index)
    for turn in range(rounds):
        for own in _rotated(list(engines.values()), turn):
            settle()
            for index in _rotated(own, turn):
                turns[index] = _slice(candidates[index], results[index], slice_s, turns[index])
        if progress is not None:
            progress("timing", turn + 1, rounds)
    return results


def _rotated(items: list[T], by: int) -> list[T]:
    at = by % len(items)
    return items[at:] + items[:at]


def _slice(candidate: Candidate, samples: Samples, slice_s: float, turn: int) -> int:
    """One slice of one candidate; gives back which copy comes next."""
    clock, calls, before = time.perf_counter, candidate.calls, candidate.before
    count = len(calls)
    if before is not None:
        before()
    start = clock()
    calls[turn % count]()
    turn += 1
    first = clock() - start
    samples.rounds += 1
    is_long = first > LONG_S and candidate.clock is None
    if is_long and samples.rounds > 1:
        samples.times_s.append(first)
        return turn
    least = 1 if is_long else MIN_CALLS
    if first < slice_s / 10 and before is None:  # a cheap call: warm up a little longer
        for _ in range(2):
            calls[turn % count]()
            turn += 1
    end = clock() + slice_s - first
    made = 0
    while made < least or clock() < end:
        call = calls[turn % count]
        if before is not None:
            before()
        if candidate.clock is not None:
            samples.times_s.append(candidate.clock(call))
        else:
            begin = clock()
            call()
            samples.times_s.append(clock() - begin)
        turn += 1
        made += 1
    return turn
