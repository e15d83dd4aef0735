"""What to measure next: first what the table shows, then what narrows break-evens down, last where the picture ends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .breakeven import next_step
from .operands import Form
from .spots import Point, Spots, allowed_dense

# What the table shows; measured first, the highest before the others so that a hopeless kernel is seen early.
TARGETS = (0.5, 0.8, 0.9)


@dataclass(frozen=True)
class Settings:
    """What was asked for, checked: `n` and sparsities ascending, nothing twice."""

    ns: tuple[int, ...]
    grid: tuple[float, ...]
    values: tuple[str, ...]
    forms: tuple[Form, ...]
    seed: int


Job = tuple[Sequence[Form], Mapping[str, Sequence[int]], float]
_Curve = tuple[Form, str, int]


class Search:
    """Which pattern and sparsity to measure next, and for whom.

    First the targets of the table for everybody, from the highest down; then, for each curve (form, value type, N),
    the sparsities that close in on its break-even; last the highest sparsity, where the picture ends.
    """

    def __init__(self, spots: Spots, settings: Settings) -> None:
        self._spots = spots
        self._settings = settings
        self._asked: set[tuple[str, str, int, float]] = set()
        fitting = [form for form in settings.forms if form.fits(spots.shape) is None]
        self._patterns: dict[str, list[Form]] = {}
        for form in fitting:
            self._patterns.setdefault(form.pattern, []).append(form)
        targets = [s for s in TARGETS if s in settings.grid] or [settings.grid[len(settings.grid) // 2]]
        self._first = {pattern: self._near(pattern, targets) for pattern in self._patterns}
        self._last = {pattern: self._near(pattern, settings.grid[-1:]) for pattern in self._patterns}
        self.grids = {pattern: self._near(pattern, settings.grid) for pattern in self._patterns}

    def _near(self, pattern: str, wanted: Sequence[float]) -> list[float]:
        form = self._patterns[pattern][0]
        return sorted({round(s, 6) for value in wanted for s in form.sparsities(value)})

    def next_job(self) -> Job | None:
        """What to measure now; None when all is known."""
        jobs = self._jobs()
        if not jobs:
            return None
        pattern, sparsity, wanted = jobs[0]
        self._asked |= {(pattern, value, n, sparsity) for value, ns in wanted.items() for n in ns}
        return self._patterns[pattern], wanted, sparsity

    def waiting(self) -> int:
        """How many jobs are known to be left."""
        return len(self._jobs())

    def _jobs(self) -> list[tuple[str, float, dict[str, list[int]]]]:
        for stage in (self._of(self._first), self._closing_in(), self._of(self._last)):
            if stage:
                return stage
        return []

    def _of(self, sparsities: Mapping[str, Sequence[float]]) -> list[tuple[str, float, dict[str, list[int]]]]:
        """Every value type and N at these sparsities, where they were not asked for yet."""
        found = []
        for sparsity in sorted({s for several in sparsities.values() for s in several}, reverse=True):
            for pattern, several in sparsities.items():
                wanted = self._new(pattern, sparsity, dict.fromkeys(self._settings.values, self._settings.ns))
                if sparsity in several and wanted:
                    found.append((pattern, sparsity, wanted))
        return found

    def _closing_in(self) -> list[tuple[str, float, dict[str, list[int]]]]:
        """What the curves ask for, those places first that tell most: widths of all that ask added up."""
        votes: dict[tuple[str, float], dict[str, list[int]]] = {}
        weight: dict[tuple[str, float], float] = {}
        for (form, value, n), ratios in self.ratios().items():
            step = next_step(ratios, self.grids[form.pattern])
            if step is None or not self._new(form.pattern, step.sparsity, {value: [n]}):
                continue
            place = (form.pattern, step.sparsity)
            wanted = votes.setdefault(place, {}).setdefault(value, [])
            wanted += [n] if n not in wanted else []
            weight[place] = weight.get(place, 0.0) + step.width
        return [(*place, votes[place]) for place in sorted(votes, key=lambda place: -weight[place])]

    def _new(self, pattern: str, sparsity: float, wanted: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
        left = {v: [n for n in ns if (pattern, v, n, sparsity) not in self._asked] for v, ns in wanted.items()}
        return {value: ns for value, ns in left.items() if ns}

    def ratios(self, dtypes: Sequence[str] | None = None) -> dict[_Curve, dict[float, float]]:
        """Speed-up of each curve by sparsity, over the fastest dense call of `dtypes` (None: the fair ones)."""
        found: dict[_Curve, dict[float, float]] = {}
        for (form, value, n), points in self.curves().items():
            base = self._spots.baseline(n, allowed_dense(value) if dtypes is None else dtypes)
            if base is not None:
                found[form, value, n] = {s: base.ratio * p.dense_s / p.time_s for s, p in points.items()}
        return found

    def curves(self) -> dict[_Curve, dict[float, Point]]:
        """The fastest kernel of each curve at each sparsity that was measured."""
        forms = {str(form): form for several in self._patterns.values() for form in several}
        found: dict[_Curve, dict[float, Point]] = {}
        for point in self._spots.points:
            curve = found.setdefault((forms[point.form], point.dtype, point.n), {})
            best = curve.get(point.sparsity)
            if best is None or point.time_s / point.dense_s < best.time_s / best.dense_s:
                curve[point.sparsity] = point
        return found
