"""The figures: the numbers behind each, from rows alone. `draw` makes pictures of them.

Those numbered 18 to 27 are the survey's, redrawn: boxes of GFLOP/s over the matrices of a category.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .data import BINS, DENSE, OURS, RIVAL, Point, Row, bin_of, implementation, points

WIDTH = 128  # the survey's k where it is not varied


@dataclass(frozen=True)
class Box:
    """The values of one box: a place along the axis, and one of several colours there."""

    place: str
    hue: str
    values: Sequence[float]


@dataclass(frozen=True)
class Figure:
    """What a picture shows.

    Args:
        name: Of its file.
        title: A few words.
        says: What it shows, in a sentence.
        kind: boxes, lines, scatter, heat or steps: how `draw` shows `data`.
        data: For boxes a list of `Box`; for the others as their functions say.
        rows: How many cells are in it.
        missing: What is not there that the figure would need; None where all is.
        axis: Of the values.
        mark: A value that the others are read against, drawn as a line.
    """

    name: str
    title: str
    says: str
    kind: str
    data: Any
    rows: int
    missing: str | None = None
    axis: str = "GFLOP/s"
    mark: float | None = None


def all_figures(rows: Sequence[Row]) -> list[Figure]:
    """Every figure, those without rows too: they say what is missing."""
    found = []
    for op, first in (("spmm", 18), ("sddmm", 23)):
        here = points(rows, op)
        found += survey_figures(here, op, first)
    for op in ("spmm", "sddmm"):
        here = points(rows, op)
        found += [speedups(here, op), winners(here, op), repaid(here, op)]
    found.append(roofline(points(rows, "spmm")))
    found.append(peaks(points(rows, "spmm")))
    found.append(headroom(rows))
    return found


def survey_figures(here: Sequence[Point], op: str, first: int) -> list[Figure]:
    """Figures 18 to 22, or 23 to 27, of the survey."""
    word = {"spmm": "SpMM", "sddmm": "SDDMM"}[op]
    k = {"spmm": "N", "sddmm": "depth"}[op]
    usual = [point for point in here if point.first["n"] == WIDTH]
    weights = [point for point in usual if point.group in ("dlmc", "masks", "llm-dlmc")]
    every = [(point, row) for point in usual for row in _by_implementation(point)]
    made = [
        (
            "data sets",
            f"The best sparse {word} of each matrix, by data set, within the last cache and beyond; {k} = {WIDTH}.",
            _boxes(usual, lambda p: p.group, lambda p: p.place or "cache not known"),
        ),
        (
            "implementations",
            f"Every implementation of {word} on every matrix it took, by data set; {k} = {WIDTH}.",
            _collect((implementation(row), point.group, float(row["gflops"])) for point, row in every),
        ),
        (
            "sparsity",
            f"{word} by share of zeros, pruned layers and masks; ours and the best rival; {k} = {WIDTH}.",
            _in_bins(_collect(_sides(weights, lambda p: p.bin))),
        ),
        (
            "data set and width",
            f"The best sparse {word} of each matrix, by data set and {k}.",
            _boxes(here, lambda p: p.group, lambda p: f"{k} = {p.first['n']}"),
        ),
        (
            "width and cache",
            f"The best sparse {word} of each matrix, by {k}, within the last cache and beyond.",
            _boxes(here, lambda p: f"{p.group}, {k} = {p.first['n']}", lambda p: p.place or "cache not known"),
        ),
    ]
    found = []
    for number, (title, says, boxes) in enumerate(made, first):
        count = sum(len(box.values) for box in boxes)
        missing = None if boxes else f"no {word} rows at {k} = {WIDTH}: zeroskip bench run survey-cpu"
        found.append(
            Figure(f"figure{number}", f"Figure {number}: {word}, {title}", says, "boxes", boxes, count, missing)
        )
    return found


def speedups(here: Sequence[Point], op: str) -> Figure:
    """Time of the best dense product over that of ours and of the best rival, by share of zeros.

    Data: {side: [(middle of a bin, lower quartile, median, upper quartile)]}.
    """
    lines: dict[str, list[tuple[float, float, float, float]]] = {OURS: [], RIVAL: []}
    count = 0
    for low, high in BINS:
        inside = [point for point in here if point.dense and bin_of(float(point.first["sparsity"])) == _name(low, high)]
        for side, rows in ((OURS, [p.ours for p in inside]), (RIVAL, [p.rival for p in inside])):
            ratios = [
                float(p.dense["time_s"]) / float(row["time_s"])
                for p, row in zip(inside, rows, strict=True)
                if row is not None and p.dense is not None
            ]
            if ratios:
                lines[side].append(((low + high) / 2, *_quartiles(ratios)))
                count += len(ratios)
    missing = None if count else f"no {op} rows with a dense rival"
    says = "Against the best dense product of the run, at 1: medians and quartiles of matrices. Below, dense wins."
    return Figure(f"speedup-{op}", f"What zeros are worth: {op}", says, "lines", lines, count, missing, "times dense")


def winners(here: Sequence[Point], op: str) -> Figure:
    """Who is fastest, by share of zeros and width.

    Data: {"places": bins, "rows": widths, "cells": {(width, bin): {winner: share}}, "counts": {the same: matrices}}.
    """
    counts: dict[tuple[int, str], dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for point in here:
        sides = {OURS: point.ours, RIVAL: point.rival, DENSE: point.dense}
        ran = {side: float(row["time_s"]) for side, row in sides.items() if row is not None}
        if point.bin is not None and len(ran) > 1:
            counts[int(point.first["n"]), point.bin][min(ran, key=ran.__getitem__)] += 1
    cells = {
        key: {side: number / sum(found.values()) for side, number in found.items()} for key, found in counts.items()
    }
    totals = {key: sum(found.values()) for key, found in counts.items()}
    data = {
        "places": [_name(*one) for one in BINS],
        "rows": sorted({key[0] for key in counts}),
        "cells": cells,
        "counts": totals,
    }
    count = sum(totals.values())
    missing = None if count else f"no {op} rows with rivals"
    says = "The share of matrices on which ours is the fastest of all, of how many, and who has most of the rest."
    return Figure(f"winners-{op}", f"Who wins where: {op}", says, "heat", data, count, missing, "share won")


def repaid(here: Sequence[Point], op: str) -> Figure:
    """After how many calls the time of preparing is won back from the best dense product.

    Data: {side: (sorted numbers of calls, how many never)}.
    """
    data: dict[str, tuple[list[int], int]] = {}
    for side, rows in ((OURS, [p.ours for p in here]), (RIVAL, [p.rival for p in here])):
        known = [row for row in rows if row is not None and row.get("speedup") is not None]
        calls = sorted(int(row["repaid_after"]) for row in known if row.get("repaid_after") is not None)
        if known:
            data[side] = (calls, len(known) - len(calls))
    count = sum(len(calls) + never for calls, never in data.values())
    missing = None if count else f"no {op} rows that say when preparing is repaid"
    says = "The share of matrices whose preparation is won back from the best dense product after so many calls."
    return Figure(f"repaid-{op}", f"Preparation repaid: {op}", says, "steps", data, count, missing, "calls")


def roofline(here: Sequence[Point]) -> Figure:
    """GFLOP/s over useful operations a byte of the working set, under what the machine can do.

    Data: {"points": [(intensity, gflops, data set)], "peak": GFLOP/s, "bandwidth": GB/s}; the peaks are medians.
    """
    needed = ("working_set", "peak_gflops", "bandwidth")
    known = [(p, p.ours) for p in here if p.ours is not None and all(p.ours.get(name) for name in needed)]
    found = [
        (2 * row["nnz"] * row["n"] / row["working_set"], float(row["gflops"]), point.group) for point, row in known
    ]
    peaks = [float(row["peak_gflops"]) for _, row in known]
    bandwidths = [float(row["bandwidth"]) for _, row in known]
    data = {
        "points": found,
        "peak": statistics.median(peaks) if peaks else None,
        "bandwidth": statistics.median(bandwidths) if bandwidths else None,
    }
    says = "Our SpMM under the peaks that were measured in the same run. Above the slope: operands came from a cache."
    return Figure("roofline", "Roofline", says, "scatter", data, len(found), None if found else "no rows with peaks")


def headroom(rows: Iterable[Row]) -> Figure:
    """How much faster our kernel would be if all rows read the same rows of B (oracle rows), by data set."""
    given = [row for row in rows if row["status"] == "ok" and row["op"] == "spmm" and row["role"] == "candidate"]
    moved = {_same(row): row for row in given if row.get("oracle")}
    found = [
        (str(row.get("dataset")), f"N = {row['n']}", float(row["time_s"]) / float(moved[_same(row)]["time_s"]))
        for row in given
        if not row.get("oracle") and _same(row) in moved
    ]
    boxes = _collect(found)
    says = "The same kernel on a matrix of the same counts with perfect locality: how much faster it is there."
    missing = None if boxes else "no oracle rows: a suite with oracle = true"
    return Figure("headroom", "Headroom of locality", says, "boxes", boxes, len(found), missing, "times as fast", 1.0)


def peaks(here: Sequence[Point]) -> Figure:
    """Share of the measured peak that the best sparse product of each matrix reaches, useful operations alone."""
    known = [(p, p.best) for p in here if p.best is not None and p.best.get("peak_gflops")]
    boxes = _collect(
        (p.group, f"N = {row['n']}", 100 * float(row["gflops"]) / float(row["peak_gflops"])) for p, row in known
    )
    says = "Useful operations of the best sparse product, in per cent of what the processor was measured to reach."
    missing = None if boxes else "no rows with peaks"
    return Figure("peak", "Per cent of peak", says, "boxes", boxes, len(known), missing, "% of measured peak", 100.0)


def share_of_peak(here: Sequence[Point], group: str) -> float | None:
    """Median share of the measured peak that the best sparse product reaches."""
    shares = [
        float(p.best["gflops"]) / float(p.best["peak_gflops"])
        for p in here
        if p.group == group and p.best is not None and p.best.get("peak_gflops")
    ]
    return statistics.median(shares) if shares else None


def _same(row: Row) -> tuple[Any, ...]:
    return tuple(row.get(name) for name in ("dataset", "matrix", "n", "kernel", "seed", "threads", "node"))


def _by_implementation(point: Point) -> list[Row]:
    """The fastest row of each implementation."""
    best: dict[str, Row] = {}
    for row in point.sparse:
        name = implementation(row)
        if name not in best or row["time_s"] < best[name]["time_s"]:
            best[name] = row
    return list(best.values())


def _boxes(here: Sequence[Point], place: Callable[[Point], str], hue: Callable[[Point], str]) -> list[Box]:
    return _collect((place(p), hue(p), float(p.best["gflops"])) for p in here if p.best is not None)


def _sides(here: Sequence[Point], place: Callable[[Point], str | None]) -> Iterable[tuple[str, str, float]]:
    for point in here:
        where = place(point)
        for side, row in ((OURS, point.ours), (RIVAL, point.rival), (DENSE, point.dense)):
            if where is not None and row is not None:
                yield where, side, float(row["gflops"])


def _collect(values: Iterable[tuple[str, str, float]]) -> list[Box]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    for place, hue, value in values:
        found[place, hue].append(value)
    return [Box(*key, sorted(found[key])) for key in sorted(found, key=_order)]


def _order(key: tuple[str, str]) -> tuple[Any, ...]:
    """Words by letters, numbers in them by size; ours before others."""
    import re

    parts = [
        [(not word.isdigit(), int(word) if word.isdigit() else word) for word in re.findall(r"\d+|\D+", text)]
        for text in key
    ]
    return (
        not key[0].startswith("zeroskip"),
        [(a, str(b).zfill(12)) for a, b in parts[0]],
        [(a, str(b).zfill(12)) for a, b in parts[1]],
    )


def _in_bins(boxes: Sequence[Box]) -> list[Box]:
    order = [_name(*one) for one in BINS]
    sides = [OURS, RIVAL, DENSE]
    return sorted(boxes, key=lambda box: (order.index(box.place), sides.index(box.hue)))


def _name(low: float, high: float) -> str:
    return f"{low * 100:g}-{high * 100:g} %"


def _quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    if len(values) == 1:
        return values[0], values[0], values[0]
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
