"""The figures of the comparison's page: bars of speed, and speed against quality."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..drawing import DENSE, INK, MUTED, ONNX, SPARSE, TORCH, WIDE_IN, WIDTH_IN, drawing, light_grid, names, number
from .settings import BASE
from .tables import Row

_TALLEST = 0.99995


def bars(rows: Sequence[Row], name: str) -> str:
    """Sentences a second of each engine; a line where dense ONNX Runtime is, and how many times that in brackets."""
    with drawing(f"bars-{name}", WIDTH_IN, 0.6 + 0.4 * len(rows)) as (_, axes, done):
        top = max(row["sentences_per_s"] for row in rows)
        for place, row in enumerate(rows):
            rate = row["sentences_per_s"]
            axes.barh(place, rate, color=colour(row), height=0.62)
            label = number(rate) + (f"  ({row['ratio']:.2f}x)" if row["ratio"] is not None else "")
            weight = "bold" if row["engine"] == "zeroskip" else "normal"
            axes.text(rate + 0.015 * top, place, label, va="center", color=INK, fontweight=weight)
        names(axes, [row["label"] for row in rows])
        base = next((row["sentences_per_s"] for row in rows if row["row"] == BASE), None)
        if base is not None:
            axes.axvline(base, color=INK, linewidth=1, linestyle=(0, (4, 3)), alpha=0.6, zorder=0.5)
        axes.set_xlim(0, top * 1.38)
        axes.set_xlabel("sentences/s")
        light_grid(axes, "x")
    return done[0]


def scatter(rows: Sequence[Row]) -> str:
    """Speed over dense ONNX Runtime against mean cosine: up and to the right is better.

    The scale is that of the distance from 1, since int8 engines lie between 0.99 and 1, and sparse ones below.
    """
    with drawing("scatter", WIDE_IN, 4.2) as (_, axes, done):
        top = max(row["ratio"] for row in rows) * 1.18
        for row, label_y in _apart(rows, 0.055 * top):
            x, y = -_distance(row["cosine_mean"]), row["ratio"]
            axes.scatter([x], [y], s=70, color=colour(row), zorder=3)
            axes.annotate(row["label"], (x, label_y), xytext=(8, -3), textcoords="offset points", color=INK, fontsize=9)
        axes.axhline(1.0, color=MUTED, linewidth=1, linestyle=(0, (4, 3)))
        _cosine_axis(axes, min(row["cosine_mean"] for row in rows))
        axes.set_ylim(0, top)
        axes.set_xlabel("mean cosine to the dense model in torch")
        axes.set_ylabel("times the speed of dense ONNX Runtime")
        light_grid(axes, "y")
    return done[0]


def _apart(rows: Sequence[Row], gap: float) -> list[tuple[Row, float]]:
    """Heights for the labels, from the lowest up: those of engines of like quality would lie on each other."""
    found: list[tuple[Row, float]] = []
    for row in sorted(rows, key=lambda row: float(row["ratio"])):
        near = [y for other, y in found if abs(_distance(other["cosine_mean"]) - _distance(row["cosine_mean"])) < 0.8]
        found.append((row, max([row["ratio"], *(y + gap for y in near)])))
    return found


def _distance(cosine: float) -> float:
    """log10 of how far a cosine is from 1, cut where float32 ends."""
    from math import log10

    return log10(1 - min(cosine, _TALLEST))


def _cosine_axis(axes: Any, lowest: float) -> None:
    ticks = [value for value in (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999) if value >= lowest - 0.1]
    axes.set_xticks([-_distance(value) for value in ticks], [f"{value:g}" for value in ticks])
    axes.set_xlim(-_distance(max(lowest - 0.15 * (1 - lowest), 0.0)) - 0.1, -_distance(1.0) + 0.75)


def colour(row: Row) -> str:
    """Ours in the page's colour, dense paler; torch and the others in grey."""
    if row["engine"] == "zeroskip":
        return DENSE if not row["sparsity"] else SPARSE
    return TORCH if row["engine"] in ("torch", "onnxruntime", "openvino") else ONNX
