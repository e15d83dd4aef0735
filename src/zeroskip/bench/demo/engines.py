"""Rows of engines that are compared, and their interleaved timing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..timer import Candidate, Samples, settle

Engine = dict[str, Any]
Progress = Callable[[str, int, int], None]


def ok(key: str, label: str, how: str) -> Engine:
    """An engine that is measured."""
    return {"key": key, "label": label, "status": "ok", "how": how, "reason": None}


def missing(key: str, label: str, reason: str) -> Engine:
    """An engine that is not, and why."""
    return {"key": key, "label": label, "status": "missing", "how": "", "reason": reason}


def rates(
    entries: Sequence[Engine], candidates: Sequence[Candidate], items: int, *, rounds: int, progress: Progress
) -> None:
    """Fill in `rate`, `rate_low`, `rate_high` (items a second) of entries from whole passes, one each a round."""
    for entry, samples in zip(entries, passes(candidates, rounds=rounds, progress=progress), strict=True):
        fill(entry, samples, items)


def passes(candidates: Sequence[Candidate], *, rounds: int, progress: Progress) -> list[Samples]:
    """Each candidate once a round, in rotating order, each when the engine before it has gone quiet."""
    import time

    found = [Samples() for _ in candidates]
    total = rounds * len(candidates)
    for turn in range(rounds):
        for place in range(len(candidates)):
            index = (place + turn) % len(candidates)
            settle()
            start = time.perf_counter()
            candidates[index].calls[0]()
            found[index].times_s.append(time.perf_counter() - start)
            found[index].rounds += 1
            progress("measuring speed", turn * len(candidates) + place + 1, total)
    return found


def fill(entry: Engine, samples: Samples, items: int) -> None:
    """Rates of an entry from its samples."""
    entry.update(
        rate=items / samples.median_s,
        rate_low=items / max(samples.times_s),
        rate_high=items / min(samples.times_s),
        seconds=samples.median_s,
        samples=len(samples.times_s),
    )
