"""The page of a comparison: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..webpage import render_template, run_facts
from . import figures
from .fronts import Row, front, measures, verdicts
from .tables import line, speed_line


def render(doc: Mapping[str, Any]) -> str:
    """The page for what `run_model` gave.

    Raises:
        MissingDependency: If jinja2 or matplotlib are not installed.
    """
    rows = [row for row in doc["rows"] if row["status"] == "ok"]
    return render_template(
        "model.html.j2",
        doc=doc,
        first=doc["rows"][0],
        verdicts=verdicts(rows),
        charts=charts(rows),
        tables=_tables(rows),
        problems=[row for row in doc["rows"] if row["status"] != "ok"],
        ways=[(row["label"], row["how"], row["engine_version"] or "") for row in rows],
        facts=facts(doc),
    )


def charts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A figure for each measure that some row has."""
    found = []
    for measure in measures(rows):
        able = [row for row in rows if row["kl"] is not None and measure.value(row) is not None]
        if able:
            names = "; ".join(row["label"] for row in front(able, measure))
            found.append({"title": measure.title, "front": names, "svg": figures.pareto(able, measure)})
    return found


def _tables(rows: Sequence[Row]) -> list[dict[str, Any]]:
    found = []
    for title, cells in (
        ("Speed; in brackets how many times torch's in float32", speed_line),
        ("Size, memory and quality", line),
    ):
        lines = [{"ours": row["engine"] == "zeroskip", "cells": cells(row)} for row in rows]
        if lines:
            found.append({"title": title, "names": list(lines[0]["cells"]), "lines": lines})
    return found


def facts(doc: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to reproduce the figures."""
    return [
        ("Dense model", f"{doc['model']}, {doc['parameters'] / 1e6:.0f} million parameters"),
        ("Threads", f"{doc['rows'][0]['threads']}, the same for every engine"),
        *run_facts(doc),
    ]
