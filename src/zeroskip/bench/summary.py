"""What rows of `zeroskip bench spmm` say together: geometric means over matrices, and how well the choice did.

A cell is one matrix at one n. *Ours* is the fastest of our kernels there, *auto* the one that `ops.plan` takes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Ratios = dict[str, float]

ALL = "all"
BEST_DENSE, BEST_SPARSE = "best dense", "best sparse"
MEDIAN, TENTH = "time_s", "time_q10_s"
# `plan` may be so much slower than dense, for noise; and so many cells may be worse than a share that is named.
ALLOWED, WORST_SHARE = 0.97, 0.05


_OF_A_CELL = ("op", "dataset", "matrix", "m", "k", "sparsity", "pattern", "n", "seed", "threads", "node", "device")


@dataclass(frozen=True)
class Cell:
    """The timed rows of one matrix at one n."""

    rows: Sequence[Row]

    @property
    def method(self) -> str:
        """How the model of a stored matrix was pruned; else the pattern."""
        first = self.rows[0]
        return str(first["method"] or first["pattern"])

    @property
    def level(self) -> float | None:
        """The share of zeros asked for; None for a stored matrix that has no such folder."""
        first = self.rows[0]
        level: float | None = first["level"] if first["matrix"] else first["sparsity"]
        return level

    @property
    def op(self) -> str:
        return str(self.rows[0].get("op", "spmm"))

    @property
    def n(self) -> int:
        return int(self.rows[0]["n"])

    @property
    def dtype(self) -> str:
        """Value type of our kernels, which `--dtype` asks for."""
        return next((str(row["dtype"]) for row in self.rows if row["role"] == "candidate"), "float32")

    @property
    def name(self) -> str:
        first = self.rows[0]
        what = first["matrix"] or f"{first['m']}x{first['k']}, {first['sparsity'] * 100:g} % zeros"
        return f"{what}, N = {self.n}"

    def fastest(self, wanted: Callable[[Row], bool], by: str = MEDIAN) -> Row | None:
        return min(filter(wanted, self.rows), key=lambda row: float(row[by]), default=None)

    def ours(self) -> Row | None:
        return self.fastest(lambda row: row["role"] == "candidate")

    def taken(self) -> Row | None:
        return self.fastest(lambda row: row["choice"] == "taken")

    def best_single(self, by: str = MEDIAN) -> Row | None:
        """The fastest of what `plan` weighed, and of our kernels beside: in the layout that it measures."""
        return self.fastest(lambda row: row["choice"] is not None or row["role"] == "candidate", by)

    def best_dense(self, by: str = MEDIAN, *, weighed: bool = False) -> Row | None:
        """The fastest dense product of a rival; with `weighed`, of those that `plan` weighed, ours among them."""
        if weighed:
            return self.fastest(lambda row: row["choice"] is not None and row["format"] == "dense", by)
        return self.fastest(lambda row: row["role"] == "dense", by)

    def why_not_weighed(self, rival: Row) -> str | None:
        """Why `plan` could not take this dense product; None where it could."""
        if rival["choice"] is not None:
            return None
        if any(row["kernel"] == rival["kernel"] and row["choice"] is not None for row in self.rows):
            return f"plan weighs it in columns, not in {rival['layout']}"
        return f"plan does not weigh {rival['origin']}"

    def rivals(self) -> dict[str, float]:
        """Seconds of each rival, at its best layout, and of the best of each kind; those that round B are of none."""
        times: dict[str, float] = {}
        for row in self.rows:
            own = f"{row['origin']} {row['format']}"
            names = {"dense": (own, BEST_DENSE), "peer": (own, BEST_SPARSE), "rounded": (f"{own} {row['dtype']}",)}
            for name in names.get(row["role"], ()):
                times[name] = min(times.get(name, math.inf), float(row["time_s"]))
        return times


def cells(rows: Iterable[Row]) -> list[Cell]:
    """The timed rows of each matrix and n together, in the order in which they were measured; no oracles."""
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        if row["status"] == "ok" and not row.get("oracle"):
            found.setdefault(tuple(row.get(name) for name in _OF_A_CELL), []).append(row)
    return list(map(Cell, found.values()))


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one positive number."""
    return math.exp(sum(map(math.log, values)) / len(values))


def summarise(*runs: Sequence[Row]) -> dict[str, Any]:
    """What the rows of all runs say together, JSON-able: `ratios`, one object for each (value type, n, method, level);
    `choice` and `lowest` for all cells, or None.

    `ratios` has the geometric mean of the time of each rival that ran in all of its cells over ours, and over auto.
    `choice` has auto over the best single kernel, `lowest` the smallest ratio of the best dense product to auto, and
    under `weighed` of the best of those that `plan` could take. `tenths` are the same of tenth percentiles.
    """
    found = [cell for rows in runs for cell in cells(rows)]
    return {"ratios": list(_ratios(found)), "choice": _choice(found), "lowest": _lowest(found)}


def _ratios(found: Sequence[Cell]) -> Iterator[dict[str, Any]]:
    """Each method at each level, then each method, then all methods, where that is more than one."""
    for op, dtype, n in sorted({(cell.op, cell.dtype, cell.n) for cell in found}):
        here = [cell for cell in found if (cell.op, cell.dtype, cell.n) == (op, dtype, n)]
        methods = sorted({cell.method for cell in here})
        for method in methods:
            own = [cell for cell in here if cell.method == method]
            levels = sorted({cell.level for cell in own}, key=lambda level: -1.0 if level is None else level)
            for level in levels:
                yield _line(n, method, level, [cell for cell in own if cell.level == level])
            if len(levels) > 1:
                yield _line(n, method, ALL, own)
        if len(methods) > 1:
            yield _line(n, ALL, ALL, here)


def _line(n: int, method: str, level: float | str | None, found: Sequence[Cell]) -> dict[str, Any]:
    return {
        "op": found[0].op,
        "n": n,
        "method": method,
        "level": level,
        "dtype": found[0].dtype,
        "cells": len(found),
        "ours": _over(found, Cell.ours),
        "auto": _over(found, Cell.taken),
    }


def _over(found: Sequence[Cell], who: Callable[[Cell], Row | None]) -> Ratios:
    """For each rival that ran in all cells the geometric mean of its time over that of `who`.

    A mean over other cells would compare with nothing: NumPy may be there only where auto took it.
    """
    ratios: dict[str, list[float]] = {}
    own = [(cell, row) for cell in found if (row := who(cell)) is not None]
    for cell, row in own:
        for name, time_s in cell.rivals().items():
            ratios.setdefault(name, []).append(time_s / float(row["time_s"]))
    return {name: geometric_mean(values) for name, values in ratios.items() if len(values) == len(own)}


def _choice(found: Sequence[Cell]) -> dict[str, Any] | None:
    """The time of auto over that of the best single kernel."""
    whole = _over_best(found, MEDIAN)
    return None if whole is None else {**whole, "tenths": _over_best(found, TENTH)}


def _over_best(found: Sequence[Cell], by: str) -> dict[str, Any] | None:
    chosen = [(cell, taken, best) for cell in found if (taken := cell.taken()) and (best := cell.best_single(by))]
    if not chosen:
        return None
    ratios = [float(taken[by]) / float(best[by]) for _, taken, best in chosen]
    worst = max(range(len(chosen)), key=ratios.__getitem__)
    cell, taken, best = chosen[worst]
    return {
        "cells": len(chosen),
        "geometric_mean": geometric_mean(ratios),
        "p95": sorted(ratios)[math.ceil((1 - WORST_SHARE) * len(ratios)) - 1],
        "total": sum(float(t[by]) for _, t, _ in chosen) / sum(float(b[by]) for _, _, b in chosen),
        "worst": ratios[worst],
        "worst_cell": cell.name,
        "worst_kernels": [taken["kernel"], best["kernel"]],
    }


def _lowest(found: Sequence[Cell]) -> dict[str, Any] | None:
    """The cell where auto is slowest beside the best dense product of the run."""
    whole = _beside_dense(found, MEDIAN)
    if whole is None:
        return None
    parts = {"tenths": _beside_dense(found, TENTH), "weighed": _beside_dense(found, MEDIAN, weighed=True)}
    return {**whole, **parts}


def _beside_dense(found: Sequence[Cell], by: str, *, weighed: bool = False) -> dict[str, Any] | None:
    ratios = [
        (float(rival[by]) / float(taken[by]), cell, taken, rival)
        for cell in found
        if (taken := cell.taken()) and (rival := cell.best_dense(by, weighed=weighed))
    ]
    if not ratios:
        return None
    ratio, cell, taken, rival = min(ratios, key=lambda item: item[0])
    return {
        "cells": len(ratios),
        "below": sum(item[0] < ALLOWED for item in ratios),
        "ratio": ratio,
        "cell": cell.name,
        "kernel": taken["kernel"],
        "rival": rival["kernel"] + ("" if rival["layout"] == "columns" else f" ({rival['layout']})"),
        "not_weighed": cell.why_not_weighed(rival),
    }
