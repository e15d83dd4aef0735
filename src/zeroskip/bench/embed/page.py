"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..webpage import render_template, run_facts
from . import figures
from .settings import MIXED, START
from .tables import Row, cases, line, not_measured, quality_line, times, title


def render(doc: Mapping[str, Any]) -> str:
    """The page for what `run_embed` gave.

    Raises:
        MissingDependency: If jinja2 or matplotlib are not installed.
    """
    rows = doc["rows"]
    most = max(row["threads"] for row in rows)
    return render_template(
        "embed.html.j2",
        doc=doc,
        threads=most,
        tiles=tiles(rows, most),
        charts=charts(rows, most),
        scatter=_scatter(rows, most),
        tables=_tables(rows),
        qualities=[quality_line(row) for row in rows if (row["case"], row["threads"]) == (cases(rows)[0], most)],
        problems=not_measured(rows),
        facts=facts(doc),
    )


def tiles(rows: Sequence[Row], threads: int) -> list[dict[str, str]]:
    """The few numbers at the top: of each of our models against dense ONNX Runtime."""
    speed = speed_case(rows)
    mine = [row for row in measured(rows, speed, threads) if row["engine"] == "zeroskip" and row["ratio"]]
    found = []
    for row in sorted(mine, key=lambda row: -row["ratio"])[:4]:
        label = f"the speed of dense ONNX Runtime: {row['model']}, cosine {row['cosine_mean']:.3f}"
        found.append({"value": times(row["ratio"]), "label": label})
    return found


def charts(rows: Sequence[Row], threads: int) -> list[dict[str, Any]]:
    """Bars of each case that has a speed."""
    found = []
    for case in cases(rows):
        mine = [row for row in measured(rows, case, threads) if row["sentences_per_s"] is not None]
        if case != START and mine:
            found.append({"title": chart_title(case), "note": title(case, mine), "svg": figures.bars(mine, case)})
    return found


def chart_title(case: str) -> str:
    """A case in a few words."""
    return {"mixed": "All lines", "single": "One sentence"}.get(case, f"Batch {case[5:]}")


def measured(rows: Sequence[Row], case: str, threads: int) -> list[Row]:
    """The rows of a case and number of threads that have figures."""
    return [row for row in rows if (row["case"], row["threads"], row["status"]) == (case, threads, "ok")]


def speed_case(rows: Sequence[Row]) -> str:
    """What speed is judged by: all lines at once, else the largest batch."""
    every = cases(rows)
    return MIXED if MIXED in every else every[-1]


def _scatter(rows: Sequence[Row], threads: int) -> str | None:
    mine = [row for row in measured(rows, speed_case(rows), threads) if row["ratio"] and row["cosine_mean"] is not None]
    return figures.scatter(mine) if mine else None


def _tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    scaled = len({row["threads"] for row in rows}) > 1
    found = []
    for case in cases(rows):
        mine = [row for row in rows if row["case"] == case]
        lines = [
            {"ours": row["engine"] == "zeroskip", "cells": line(row, scaled)} for row in mine if row["status"] == "ok"
        ]
        if lines:
            found.append({"title": title(case, mine), "names": list(lines[0]["cells"]), "lines": lines})
    return found


def facts(doc: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to reproduce the figures."""
    threads = sorted({row["threads"] for row in doc["rows"]})
    return [
        ("Dense model", doc["dense"]),
        ("Threads", ", ".join(map(str, threads)) + ", the same for every engine"),
        *run_facts(doc),
    ]
