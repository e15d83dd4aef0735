"""The figures of the comparison's page: each measure against the divergence from the dense model, with its front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..drawing import DENSE, INK, MUTED, ONNX, POOR, SPARSE, WIDE_IN, drawing, light_grid
from .fronts import LEAST_KL, Measure, Row, divergence, front

_HEIGHT = 5.0


def pareto(rows: Sequence[Row], measure: Measure) -> str:
    """A measure over divergence, both on scales of powers: left is closer to dense, and the line joins the front."""
    points = [(row, divergence(row), float(measure.value(row) or 0)) for row in rows]
    with drawing(f"pareto-{measure.key}", WIDE_IN, _HEIGHT) as (_, axes, done):
        axes.set_xscale("log")
        axes.set_yscale("log")
        best = [(divergence(row), float(measure.value(row) or 0)) for row in front(rows, measure)]
        axes.plot(*zip(*best, strict=True), color=MUTED, linewidth=1, linestyle=(0, (4, 3)), zorder=1)
        for row, x, y in points:
            axes.scatter([x], [y], s=64, color=colour(row), marker=marker(row), zorder=3)
        highest = max(y for _, _, y in points)
        lowest = min(y for _, _, y in points)
        span = math.log(max(highest / lowest, 2.0))
        for row, x, y, height in _apart(points, span / (_HEIGHT * 5)):
            line = {"color": MUTED, "linewidth": 0.5} if abs(math.log(height / y)) > 0.02 * span else None
            axes.annotate(
                row["label"],
                (x, y),
                xytext=(x * 1.13, height),
                color=INK,
                fontsize=8,
                va="center",
                arrowprops=line and {"arrowstyle": "-", **line},
            )
        axes.set_xlim(LEAST_KL / 1.6, max(x for _, x, _ in points) * 8)
        axes.set_ylim(lowest * math.exp(-0.08 * span), highest * math.exp(0.1 * span))
        axes.set_xlabel("divergence from the dense model in torch, nats a prediction (lower is better)")
        axes.set_ylabel(f"{measure.unit} ({'higher' if measure.more else 'lower'} is better)")
        _plain_ticks(axes, lowest, highest)
        powers = range(round(math.log10(LEAST_KL)), math.ceil(math.log10(max(x for _, x, _ in points))) + 1)
        axes.set_xticks([10.0**power for power in powers], [f"{10.0**power:g}" for power in powers])
        axes.set_xticks([], minor=True)
        light_grid(axes, "both")
    return done[0]


def _apart(points: Sequence[tuple[Row, float, float]], gap: float) -> list[tuple[Row, float, float, float]]:
    """Heights for labels, from the lowest up: those that are near in divergence would lie on each other."""
    found: list[tuple[Row, float, float, float]] = []
    for row, x, y in sorted(points, key=lambda point: point[2]):
        near = [height for _, other, _, height in found if abs(math.log10(other / x)) < 0.9]
        found.append((row, x, y, max([y, *(height * math.exp(gap) for height in near)])))
    return found


def _plain_ticks(axes: Any, lowest: float, highest: float) -> None:
    """Round numbers along a scale of powers."""
    powers = range(math.floor(math.log10(lowest)) - 1, math.ceil(math.log10(highest)) + 1)
    ticks = [step * 10.0**power for power in powers for step in (1, 2, 5)]
    shown = [tick for tick in ticks if lowest * 0.8 <= tick <= highest * 1.2]
    axes.set_yticks(shown, [f"{tick:g}" for tick in shown])
    axes.set_yticks([], minor=True)


def colour(row: Row) -> str:
    """Ours in the page's colours: sparse, dense paler, blocks dropped in a third; the others in grey."""
    if row["engine"] != "zeroskip":
        return ONNX
    if row["sparsity"] > 0.05:
        return SPARSE
    return POOR if row["row"].endswith("-blocks") else DENSE


def marker(row: Row) -> str:
    """A shape for each kind, so that colour is not all that tells them apart."""
    return {ONNX: "o", SPARSE: "D", POOR: "^", DENSE: "s"}[colour(row)]
