"""The clock of `plan`: candidates in turns, first all of them shortly, then those that may still win, head to head.

What disturbs a run (a neighbour, an interrupt, the threads of another library) makes it longer and never shorter, so a
candidate's time is the lower quartile of its turns, each the fastest of some runs: on two cores of which somebody else
took one now and then, medians of equal kernels were seen 2x apart (Zen 3, 2026-11).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from .._arrays import copied_to_lines, empty_lines
from ..kernels import Prepared, registry
from ..kernels._base import Float32

# A sample shorter than this is mostly clock and call; shorter kernels run several times in one sample.
MIN_SAMPLE_S = 100e-6
# Before the kernels of another library its predecessor's threads go to sleep, and get so long for it: some spin for a
# tenth of a second, and with 10 ms torch's dense product was seen at 12 ms where it takes 0.9 (512x512, N = 128).
SETTLE_MAX_S = 0.3
# Nobody runs where nobody was seen to so often, a step apart.
_STEP_S, _QUIET, _TICK_S = 0.001, 2, 0.01
# What is this many times slower than the best, by the cost model or in its first timed runs, is not timed further.
HOPELESS = 4.0
# One run of these says little: another program that had the core made 0.65 ms into 4.6, and a winner hopeless. So they
# run again, so often, unless that takes too much of the time.
_AGAIN, _AGAIN_SHARE = 2, 0.25
# Of each side, dense and sparse, those this close to its best go on to the second part; none where the side is so far
# behind the other that nothing there can win.
CLOSE, APART = 1.15, 1.5
# The first part: its share of the time, and how many turns at least, one of them the first timed run, and at most.
_SCREEN_SHARE, _SCREEN_TURNS = 0.4, (3, 9)
_DUEL_TURNS = (3, 99)
# A turn is a slice of time; short ones alternate more often, but after a pause for other threads they would be waste.
_SLICE_S, _SLICES = 1e-3, 6
# Longer runs are not preceded by one that only brings their weights into the caches.
_WARM_MAX_S = 5e-3
# Pauses and walks over memory may take so many times the budget, beside it.
_ASIDE = 4.0


@dataclass(frozen=True)
class Span:
    """What one candidate took.

    Attributes:
        time_s: Seconds of one run: the lower quartile of its turns.
        noise: Standard error of that, as a share of it; 0 where there were too few turns to tell.
        dropped: Why it was not timed to the end; None where it was.
    """

    time_s: float
    noise: float = 0.0
    dropped: str | None = None


def measure(
    prepared: Sequence[Prepared],
    n: int,
    *,
    transposed: bool = False,
    bias: Float32 | None = None,
    activation: str | None = None,
    budget_s: float = 0.2,
    min_sample_s: float = MIN_SAMPLE_S,
    settle_max_s: float = SETTLE_MAX_S,
    flush_bytes: int = 0,
    dense: Collection[str] = (),
) -> list[Span]:
    """The time of one run of each candidate, in the order given.

    Candidates take turns, forward and backward, so that a change of clock or a neighbour's load meets all of them.
    After the first timed runs the hopeless drop out, after some turns whoever is not close to the best of its side;
    the rest of the time is for those that may win. Each turn begins with a run that is not timed, so weights are where
    calls that follow each other find them; `flush_bytes` is for weights that come from memory.

    Threads of one library that spin while they wait for work slow the next one down (libgomp's do for milliseconds,
    OpenBLAS's for about 100, Intel's for 200). So candidates of one origin take their turns together; before those of
    another origin there is a pause, and a run that is not timed, which wakes its own threads.

    Args:
        prepared: Candidates, all of the same matrix.
        n: Columns of x.
        transposed: Whether vectors lie in rows, as in a linear layer.
        bias: As in `Prepared.run`.
        activation: As in `Prepared.run`.
        budget_s: Time for the runs of all of them together, pauses not counted. Each has three turns whatever it costs,
            those that may win three more.
        min_sample_s: Shorter runs are repeated within one sample.
        settle_max_s: How long the pause between origins may be; none where all candidates have the same.
        flush_bytes: Between two runs of a candidate so much other memory is read, as in a model larger than the caches:
            the weights of the others, and a buffer for what these lack.
        dense: Names of the dense ones. The best of them is the baseline and has its three turns however slow it is.
    """
    if not prepared:
        return []
    bench = _Bench(prepared, n, transposed, bias, activation, settle_max_s, flush_bytes, min_sample_s)
    everyone = range(len(prepared))
    bench.touch()
    bench.turn(everyone, 0.0)
    sides = [item.kernel in dense for item in prepared]
    dropped = _hopeless(bench.least(), sides)
    for _ in range(_AGAIN):
        least = bench.least()
        bench.turn([i for i in dropped if least[i] <= _AGAIN_SHARE * budget_s], 0.0)
        dropped = _hopeless(bench.least(), sides)
    alive = [i for i in everyone if i not in dropped]
    bench.turns(alive, _SCREEN_SHARE * budget_s, (_SCREEN_TURNS[0] - 1, _SCREEN_TURNS[1] - 1))
    dropped |= _behind({i: bench.least()[i] for i in alive}, sides)
    rest = [i for i in alive if i not in dropped]
    if len(rest) > 1:
        bench.turns(rest, max(0.0, budget_s - bench.spent_s), _DUEL_TURNS)
    return [Span(*quartile(bench.figures[i]), dropped.get(i)) for i in everyone]


def quartile(figures: Sequence[float]) -> tuple[float, float]:
    """The lower quartile and its relative standard error.

    A quantile p of m figures has the standard error sqrt(p (1 - p) / m) over the density there, which is taken from the
    distance of the quantiles 0.1 and 0.4.
    """
    low, found, high = (float(value) for value in np.quantile(figures, (0.1, 0.25, 0.4)))
    if len(figures) < _SCREEN_TURNS[0] or not found:
        return found, 0.0
    return found, float(np.sqrt(0.25 * 0.75 / len(figures))) * (high - low) / 0.3 / found


def settle(most_s: float = SETTLE_MAX_S) -> float:
    """Sleep until no other thread of this process wants a processor any more, at most `most_s`.

    Returns:
        How long it took.
    """
    start = time.perf_counter()
    quiet = 0
    while quiet < _QUIET and time.perf_counter() - start < most_s:
        before, used = time.perf_counter(), time.process_time()
        time.sleep(_STEP_S)
        running = _others_run()
        if running is None:
            time.sleep(_TICK_S)  # processor time of threads that run elsewhere is brought up to date by ticks
            running = time.process_time() - used > 0.1 * (time.perf_counter() - before)
        quiet = 0 if running else quiet + 1
    return time.perf_counter() - start


def _others_run() -> bool | None:
    """Whether another thread of this process runs or waits for a processor; None where the system does not say."""
    own = str(threading.get_native_id())
    try:
        for task in os.listdir("/proc/self/task"):
            with open(f"/proc/self/task/{task}/stat", "rb") as file:
                state = file.read().rpartition(b")")[2].split()[:1]
            if task != own and state == [b"R"]:
                return True
    except OSError:  # no such folder, or a thread that has ended since it was listed
        return None
    return False


def _hopeless(least: dict[int, float], dense: Sequence[bool]) -> dict[int, str]:
    """Those that cannot win by their first timed runs; the best dense one stays."""
    fastest = min(least.values())
    baseline = min((i for i in least if dense[i]), key=least.__getitem__, default=None)
    lost = {i: span / fastest for i, span in least.items() if span > HOPELESS * fastest and i != baseline}
    return {i: f"hardly timed: {ratio:.1f} times the best candidate" for i, ratio in lost.items()}


def _behind(least: dict[int, float], dense: Sequence[bool]) -> dict[int, str]:
    """Those that are not close to the best of their side, or whose side is far behind the other."""
    best = {side: min((least[i] for i in least if dense[i] == side), default=float("inf")) for side in (True, False)}
    reasons = {}
    for i, span in least.items():
        own, other = best[dense[i]], best[not dense[i]]
        word = "dense" if dense[i] else "sparse"
        if span > CLOSE * own:
            reasons[i] = f"timed shortly: {span / own:.2f} times the best {word} candidate"
        elif own > APART * other:
            reasons[i] = f"timed shortly: {word} takes {own / other:.2f} times as long"
    return reasons


class _Bench:
    """Candidates with the arrays they run on, and one figure for each turn that they had."""

    def __init__(
        self,
        prepared: Sequence[Prepared],
        n: int,
        transposed: bool,
        bias: Float32 | None,
        activation: str | None,
        settle_max_s: float,
        flush_bytes: int,
        min_sample_s: float,
    ) -> None:
        rows, columns = prepared[0].shape
        rng = np.random.default_rng(0)
        self.figures: list[list[float]] = [[] for _ in prepared]
        self._prepared = prepared
        self._origins = [_origin(item.kernel) for item in prepared]
        # At lines, as tensors of torch: some kernels take such operands as they are and copy others.
        self._x = copied_to_lines(rng.standard_normal((n, columns) if transposed else (columns, n), dtype=np.float32))
        self._out = empty_lines((n, rows) if transposed else (rows, n))
        self._bias, self._activation, self._transposed = bias, activation, transposed
        self._settle_max_s, self._min_sample_s = settle_max_s, min_sample_s
        # Ones: pages of zeros would all be the same one. It is only read, or its lines would have to be written back.
        self._other = np.ones(flush_bytes // 4, dtype=np.float32)
        self._flush_bytes, self._read_bytes = flush_bytes, 0
        self._seen = [0] * len(prepared)  # bytes that had been read when a candidate last ran
        self._touch_s = [0.0] * len(prepared)
        self._awake: str | None = None
        self._backward = False
        self.spent_s = 0.0

    def least(self) -> dict[int, float]:
        """The best turn of each."""
        return {i: min(found) for i, found in enumerate(self.figures)}

    def touch(self) -> None:
        """Run each once: first touch of pages, lazy compilation, thread pools."""
        for i in range(len(self._prepared)):
            self._touch_s[i] = self._sample(i, 1)

    def run(self, candidate: int) -> None:
        item = self._prepared[candidate]
        item.run(self._x, self._out, bias=self._bias, activation=self._activation, transposed=self._transposed)
        self._read_bytes += item.nbytes
        self._seen[candidate] = self._read_bytes

    def turns(self, candidates: Sequence[int], budget_s: float, count: tuple[int, int]) -> None:
        """Turns until the time is spent, but at least and at most so many."""
        one = len({self._origins[i] for i in candidates}) == 1
        slice_s = budget_s / _SLICES / max(1, len(candidates))
        before, start = self.spent_s, time.perf_counter()
        for done in range(count[1]):
            spent, passed = self.spent_s - before, time.perf_counter() - start
            if done >= count[0] and (spent >= budget_s or passed >= (1 + _ASIDE) * budget_s):
                break
            self.turn(candidates, min(slice_s, _SLICE_S) if one else slice_s)

    def turn(self, candidates: Sequence[int], slice_s: float) -> None:
        """A slice of each candidate, those of one origin together; the next turn goes the other way round."""
        origins = list(dict.fromkeys(self._origins[i] for i in candidates))
        order = [i for origin in origins for i in candidates if self._origins[i] == origin]
        for i in reversed(order) if self._backward else order:
            if len(origins) > 1 and self._origins[i] != self._awake:
                settle(self._settle_max_s)
                self.run(i)
            self._awake = self._origins[i]
            self.figures[i].append(self._slice(i, slice_s))
        self._backward = not self._backward

    def _slice(self, candidate: int, slice_s: float) -> float:
        """Seconds of the fastest run, of as many as there is time for."""
        if self._flush_bytes:
            self._walk(candidate)
            return self._sample(candidate, 1)
        usual = min(self.figures[candidate], default=self._touch_s[candidate])
        if usual <= _WARM_MAX_S:
            self._sample(candidate, 1)
        repeats = max(1, round(self._min_sample_s / max(usual, 1e-7)))
        end = time.perf_counter() + slice_s
        found = [self._sample(candidate, repeats)]
        while time.perf_counter() < end:
            found.append(self._sample(candidate, repeats))
        return min(found)

    def _sample(self, candidate: int, repeats: int) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            self.run(candidate)
        spent = time.perf_counter() - start
        self.spent_s += spent
        return spent / repeats

    def _walk(self, candidate: int) -> None:
        """Read what the others have not read since this one ran."""
        lacking = self._flush_bytes - (self._read_bytes - self._seen[candidate])
        if lacking >= 4:
            self._other[: lacking // 4].max()
            self._read_bytes += lacking


def _origin(name: str) -> str:
    """Whose threads a kernel uses."""
    return registry.get(name).origin if name in registry else ""
