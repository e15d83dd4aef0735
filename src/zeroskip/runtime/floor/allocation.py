"""Which layer is made how coarse: the fastest assignment of rungs that is predicted to lose no more than allowed.

Pure functions on tables of numbers. A *rung* is one way to store a layer: what it is pruned to and its value type. Each
has a time and a predicted loss. Losses of layers add up: each moves the result in a direction of its own, so that the
squares of the distances add, and 1 - cosine is half of such a square.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

# Of the allowed loss, what a trial aims at, and from where on it is "just above the floor".
AIM = 0.95
CLOSE = 0.88
# Two assignments closer than this in time are equally fast.
SAME_TIME = 0.01
# What pruning with refit loses of what the layers lose alone, before a trial has shown it.
FIRST_RATIO = 0.5


@dataclass(frozen=True)
class Rung:
    """One way to store a layer.

    Args:
        prune: The sparsity that it is pruned to, an N:M pattern, or 0.0 for as given.
        values: Value type of its weights.
        activations: What kernels may round x to.
    """

    prune: float | str = 0.0
    values: str = "float32"
    activations: str = "float32"

    @property
    def as_given(self) -> bool:
        """Whether this changes nothing."""
        return self == Rung()

    def __str__(self) -> str:
        pruned = self.prune if isinstance(self.prune, str) else f"{self.prune:.0%}" if self.prune else "not pruned"
        rounded = "" if self.activations == "float32" else f", x in {self.activations}"
        return f"{pruned}, {self.values}{rounded}"


@dataclass(frozen=True)
class Option:
    """A rung of one layer with its time in seconds and its predicted loss of cosine, were it the only change."""

    rung: Rung
    time_s: float
    loss: float


Table = Mapping[str, Sequence[Option]]
Assignment = dict[str, Option]


def useful(options: Sequence[Option]) -> list[Option]:
    """The options that are best for some price of loss, from the one that loses least to the fastest.

    They are the corners of the lower convex hull of time over loss; between any two neighbours, seconds gained for
    each unit of loss fall.
    """
    kept: list[Option] = []
    for option in sorted(options, key=lambda item: (item.loss, item.time_s)):
        if kept and option.time_s >= kept[-1].time_s:
            continue
        while len(kept) > 1 and _gain(kept[-1], option) >= _gain(kept[-2], kept[-1]):
            kept.pop()
        if kept and option.loss <= kept[-1].loss:
            kept.pop()
        kept.append(option)
    return kept


def _gain(now: Option, then: Option) -> float:
    """Seconds gained for each unit of loss."""
    more = then.loss - now.loss
    return math.inf if more <= 0 else (now.time_s - then.time_s) / more


def allocate(table: Table, budget: float) -> Assignment:
    """The fastest assignment whose losses sum to `budget` at most.

    Steps along the layers' hulls are taken by what they gain for their loss, the best first, while they fit:
    exact where the budget is just used up, else at most one step short of it.

    Args:
        table: Of each layer its options; one of them loses nothing.
        budget: Loss in all.
    """
    hulls = {name: useful(options) for name, options in table.items()}
    found = {name: hull[0] for name, hull in hulls.items()}
    steps = [
        (_gain(now, then), name, at) for name, hull in hulls.items() for at, (now, then) in enumerate(pairwise(hull))
    ]
    left = budget - loss_of(found)
    stopped: set[str] = set()
    for _, name, at in sorted(steps, key=lambda step: (-step[0], step[1], step[2])):
        more = hulls[name][at + 1].loss - hulls[name][at].loss
        if name in stopped or more > left:
            stopped.add(name)  # what follows in this layer builds on this step
            continue
        found[name], left = hulls[name][at + 1], left - more
    return found


def loss_of(assignment: Mapping[str, Option]) -> float:
    """The predicted losses of all layers, added."""
    return sum(option.loss for option in assignment.values())


def time_of(assignment: Mapping[str, Option]) -> float:
    """Seconds of all layers, added."""
    return sum(option.time_s for option in assignment.values())


@dataclass(frozen=True)
class Trial:
    """An assignment that was really made, and its measured loss.

    Args:
        assignment: What was made.
        loss: 1 - mean cosine on the held-back lines.
    """

    assignment: Assignment
    loss: float

    @property
    def predicted(self) -> float:
        return loss_of(self.assignment)

    @property
    def time_s(self) -> float:
        return time_of(self.assignment)


@dataclass
class Bracket:
    """Trials from both sides towards the allowed loss.

    Args:
        table: Of each layer its options.
        allowed: 1 - the floor.
        trials: What was measured so far.
    """

    table: Table
    allowed: float
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        """The fastest trial above the floor."""
        return min(self._passed(), key=lambda trial: trial.time_s, default=None)

    def next(self) -> Assignment | None:
        """What to try next; None where nothing faster is left to find between what passed and what failed."""
        low, high = self.best, self._failed()
        given = allocate(self.table, 0.0)
        if low is not None and low.loss >= CLOSE * self.allowed:
            return None
        trial = allocate(self.table, self._budget(low, high))
        floor_s = time_of(given) if low is None else low.time_s
        if high is not None and time_of(trial) <= high.time_s * (1 + SAME_TIME / 2):
            # So near to what failed: half-way between the two, in loss.
            trial = allocate(self.table, 0.5 * (high.predicted + (low.predicted if low else 0.0)))
            if time_of(trial) <= high.time_s * (1 + SAME_TIME / 4):
                return None
        if time_of(trial) >= floor_s * (1 - SAME_TIME):
            return None
        return trial

    def _passed(self) -> list[Trial]:
        return [trial for trial in self.trials if trial.loss <= self.allowed]

    def _failed(self) -> Trial | None:
        """The slowest trial that lost too much."""
        failed = [trial for trial in self.trials if trial.loss > self.allowed]
        return max(failed, key=lambda trial: trial.time_s, default=None)

    def _budget(self, low: Trial | None, high: Trial | None) -> float:
        """The predicted loss at which the measured one should be as aimed at: a power law between or through trials."""
        aim = AIM * self.allowed
        if low is not None and high is not None and low.loss > 0 and 0 < low.predicted < high.predicted:
            slope = math.log(high.loss / low.loss) / math.log(high.predicted / low.predicted)
            if slope > 0:
                inside = low.predicted * (aim / low.loss) ** (1 / slope)
                width = high.predicted / low.predicted
                return float(min(max(inside, low.predicted * width**0.1), high.predicted * width**-0.1))
        near = low or high
        if near is None or near.loss <= 0 or near.predicted <= 0:
            return aim / FIRST_RATIO
        return near.predicted * aim / near.loss
