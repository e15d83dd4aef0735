"""From measured ratios to answers: the speed-up at any sparsity, and the sparsity from which it is above 1.

Between two measured sparsities the logarithm of the ratio is taken as linear in the logarithm of the density, as it is
where time goes with the number of entries. Nothing is said outside of what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

# A density of 0 has no logarithm; nothing is measured there, but a caller may ask.
_LEAST_DENSITY = 1e-6


@dataclass(frozen=True)
class BreakEven:
    """The sparsity from which a kernel beats dense at every measured sparsity above.

    Attributes:
        kind: `from` (at `sparsity`), `always` (the lowest sparsity asked for wins), `never` (the highest loses),
            `below` or `above` (`sparsity`, the lowest or highest that time allowed to measure), `unknown` (nothing
            measured).
        sparsity: None for always, never and unknown.
    """

    kind: str
    sparsity: float | None = None

    def __str__(self) -> str:
        if self.sparsity is None:
            return {"unknown": "?"}.get(self.kind, self.kind)
        sign = {"from": "", "below": "<", "above": ">"}[self.kind]
        return f"{sign}{100 * self.sparsity:.0f} %"

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "sparsity": None if self.sparsity is None else round(self.sparsity, 4)}


def break_even(ratios: Mapping[float, float], lowest: float, highest: float) -> BreakEven:
    """Where the ratio crosses 1 for the last time, going up in sparsity.

    Args:
        ratios: Time of dense over time of the kernel, by sparsity.
        lowest, highest: The ends of what was to be measured.
    """
    points = sorted(ratios)
    if not points:
        return BreakEven("unknown")
    if ratios[points[-1]] < 1:
        return BreakEven("never") if points[-1] >= highest - 1e-9 else BreakEven("above", points[-1])
    losing = [s for s in points if ratios[s] < 1]
    if not losing:
        return BreakEven("always") if points[0] <= lowest + 1e-9 else BreakEven("below", points[0])
    low = losing[-1]
    high = points[points.index(low) + 1]
    y0, y1 = math.log(ratios[low]), math.log(ratios[high])
    x0, x1 = _place(low), _place(high)
    return BreakEven("from", 1.0 - math.exp(x0 + (x1 - x0) * (0.0 - y0) / (y1 - y0)))


def speedup_at(ratios: Mapping[float, float], sparsity: float) -> float | None:
    """The ratio at a sparsity, interpolated; None outside of what was measured."""
    below = max((s for s in ratios if s <= sparsity + 1e-3), default=None)
    above = min((s for s in ratios if s >= sparsity - 1e-3), default=None)
    if below is None or above is None:
        return None
    if above - below < 2e-3:
        return ratios[below]
    share = (_place(sparsity) - _place(below)) / (_place(above) - _place(below))
    return math.exp(math.log(ratios[below]) * (1 - share) + math.log(ratios[above]) * share)


class Step(NamedTuple):
    """A sparsity to measure, and how wide the range is in which the break-even may still be."""

    sparsity: float
    width: float


def next_step(ratios: Mapping[float, float], grid: Sequence[float]) -> Step | None:
    """The sparsity of `grid` that halves what is not known of the break-even; None when the grid cannot tell more.

    Args:
        ratios: What was measured, by sparsities of the grid.
        grid: Ascending.
    """
    done = sorted(s for s in ratios if s in grid)
    if not done:
        return None
    losing = [s for s in done if ratios[s] < 1]
    low = grid.index(losing[-1]) if losing else -1
    high = len(grid)
    if ratios[done[-1]] >= 1:
        high = grid.index(done[done.index(losing[-1]) + 1] if losing else done[0])
    if high - low < 2:
        return None
    return Step(grid[(low + high) // 2], grid[min(high, len(grid) - 1)] - grid[max(low, 0)])


def _place(sparsity: float) -> float:
    return math.log(max(1.0 - sparsity, _LEAST_DENSITY))
