"""The comparison as text: a table a number of threads and case, and what each engine needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing import number
from ..tables import megabytes, seconds, table
from .settings import MIXED, SINGLE, START

Row = Mapping[str, Any]


def cases(rows: Sequence[Row]) -> list[str]:
    """The cases of some rows, in order."""
    return list(dict.fromkeys(row["case"] for row in rows))


def title(case: str, rows: Sequence[Row]) -> str:
    """A case in words."""
    first = rows[0]
    if case == SINGLE:
        return f"one sentence of {first['tokens']} tokens, again and again"
    if case == MIXED:
        return f"{first['lines']} lines at once, sorted by length"
    if case == START:
        return "start of a process, and its memory after all lines"
    size = int(case[5:])
    many = "one line at a time" if size == 1 else f"{size} lines at a time, each batch padded to its longest"
    return f"{first['lines']} lines in their own order, {many}"


def terminal(rows: Sequence[Row]) -> str:
    """All tables, and what was not measured."""
    parts = []
    for case in cases(rows):
        mine = [row for row in rows if row["case"] == case]
        done = [row for row in mine if row["status"] == "ok"]
        scaled = len({row["threads"] for row in rows}) > 1
        parts += [title(case, mine), table([line(row, scaled) for row in done]), ""]
    qualities = [row for row in rows if row["case"] == cases(rows)[0] and row["threads"] == rows[0]["threads"]]
    parts += ["quality against the dense model in torch", table([quality_line(row) for row in qualities]), ""]
    parts += [f"{row['label']}: {row['status']}: {row['reason']}" for row in not_measured(rows)]
    return "\n".join(parts).rstrip()


def not_measured(rows: Sequence[Row]) -> list[Row]:
    """Failed and missing rows, each reason of an engine once."""
    found: dict[tuple[str, str], Row] = {}
    for row in rows:
        if row["status"] != "ok":
            found.setdefault((row["row"], row["reason"]), row)
    return list(found.values())


def line(row: Row, scaled: bool) -> dict[str, str]:
    """A row of the table of its case."""
    head = {"engine": row["label"], "threads": str(row["threads"])}
    scaling = {"over fewest threads": times(row["speedup"])} if scaled else {}
    if row["case"] == START:
        return {
            **head,
            "first answer": seconds(row["start_s"]),
            "vs ONNX Runtime": times(row["ratio"]),
            "resident": megabytes(row["resident_bytes"]),
            "peak": megabytes(row["peak_bytes"]),
            "on disk": megabytes(row["disk_bytes"]),
        }
    latency = {} if row["batch"] != 1 else {"p50": seconds(row["p50_s"]), "p95": seconds(row["p95_s"])}
    return {
        **head,
        "sentences/s": number(row["sentences_per_s"]),
        "range": f"{number(row['sentences_per_s_low'])} .. {number(row['sentences_per_s_high'])}",
        "vs ONNX Runtime": times(row["ratio"]),
        **scaling,
        **latency,
        "cosine": cosine(row["cosine_mean"]),
        "how": (row["how"] or "") + (f", {row['batch']} at a time" if row["case"] == MIXED else ""),
    }


def quality_line(row: Row) -> dict[str, str]:
    """What the vectors of a row are worth."""
    known = row["cosine_mean"] is not None
    return {
        "engine": row["label"],
        "values": row["values"],
        "zeros": "" if row["sparsity"] is None else f"{row['sparsity']:.0%}",
        "mean cosine": cosine(row["cosine_mean"]),
        "lowest tenth": cosine(row["cosine_p10"]),
        "smallest": cosine(row["cosine_min"]),
        "neighbours kept": f"{row['neighbours_kept']:.1%}" if known else "",
        "rank correlation": f"{row['rank_correlation']:.4f}" if known else "",
    }


def times(value: float | None) -> str:
    """A ratio."""
    return "" if value is None else f"{value:.2f}x"


def cosine(value: float | None) -> str:
    """A cosine."""
    return "" if value is None else f"{value:.4f}"
