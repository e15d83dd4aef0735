"""Writes the report: one page that needs nothing else, and a picture of each figure."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..summary import geometric_mean
from ..webpage import render_template, write_text
from . import draw
from .data import points
from .figures import Figure, all_figures
from .findings import findings

PAGE = "report.html"
# What the table of rows shows, and what it is called there.
COLUMNS = {
    "op": "operation",
    "dataset": "data set",
    "matrix": "matrix",
    "method": "method",
    "m": "M",
    "k": "K",
    "sparsity": "zeros",
    "n": "N",
    "kernel": "kernel",
    "role": "role",
    "status": "status",
    "time_s": "time, us",
    "gflops": "GFLOP/s",
    "speedup": "over dense",
    "prepare_s": "prepare, ms",
    "nbytes": "bytes",
}


def write(rows: Sequence[Mapping[str, Any]], folder: Path, *, pictures: bool = True, command: str = "") -> list[Path]:
    """Write `report.html` and PNGs.

    Args:
        rows: Of `zeroskip bench run` or `bench spmm`.
        folder: Made where it is missing.
        pictures: Whether to write PNGs too.
        command: How the rows were made.
    Returns:
        The files.
    Raises:
        MissingDependency: If matplotlib or jinja2 are not installed.
    """
    figures = all_figures(rows)
    page = render(rows, figures, command)
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / PAGE]
    write_text(written[0], page)
    for figure in figures if pictures else ():
        if figure.missing is None:
            written.append(folder / f"{figure.name}.png")
            draw.png(figure, written[-1])
    return written


def render(rows: Sequence[Mapping[str, Any]], figures: Sequence[Figure], command: str) -> str:
    """The page."""
    shown = [{"figure": figure, "svg": draw.svg(figure)} for figure in figures if figure.missing is None]
    return render_template(
        "report.html.j2",
        tiles=tiles(rows),
        states=Counter(row["status"] for row in rows),
        failed=[row for row in rows if row["status"] == "failed"][:50],
        skipped=skipped(rows),
        figures=shown,
        missing=[figure for figure in figures if figure.missing is not None],
        findings=findings(rows),
        facts=facts(rows, command),
        columns=COLUMNS,
        data=_embedded(rows),
    )


def tiles(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The numbers at the top: geometric means over cells, losses as plainly as gains."""
    found = []
    for op, word in (("spmm", "SpMM"), ("sddmm", "SDDMM")):
        here = points(rows, op)
        pairs = [(p.ours, p.rival, p.dense) for p in here if p.ours is not None]
        for name, place in (("the best sparse rival", 1), ("the best dense product", 2)):
            both = [(own, other) for own, *others in pairs if (other := others[place - 1]) is not None]
            ratios = [float(other["time_s"]) / float(own["time_s"]) for own, other in both]
            if ratios:
                lost = sum(ratio < 1 for ratio in ratios)
                label = f"{word}: times as fast as {name} (geometric mean of {len(ratios)} cells; slower in {lost})"
                found.append({"value": f"{geometric_mean(ratios):.2f}x", "label": label})
    return found


def skipped(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, str]]:
    """Kernels that could not run: how often, and a reason."""
    counts: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    for row in rows:
        if row["status"] == "skipped":
            counts[row["kernel"]] += 1
            reasons.setdefault(row["kernel"], str(row["reason"]))
    return [(kernel, count, reasons[kernel]) for kernel, count in sorted(counts.items())]


def facts(rows: Sequence[Mapping[str, Any]], command: str) -> list[tuple[str, str]]:
    """What is needed to reproduce the figures."""
    if not rows:
        return []
    machines = {json.dumps(row["machine"], sort_keys=True): row for row in rows}
    found = [("Command", command)] if command else []
    for row in machines.values():
        where = row["machine"]
        caches = f"L2 {where['l2_bytes'] >> 10} KiB, L3 {where['l3_bytes'] >> 20} MiB"
        found.append(
            ("Processor", f"{where['cpu']}, {where['cores']} cores, {where['isa']}, {caches}, {where['system']}")
        )
        if where.get("gpu"):
            found.append(("Device", where["gpu"]))
    peaks = [float(row["peak_gflops"]) for row in rows if row.get("peak_gflops")]
    if peaks and any(row.get("bandwidth") for row in rows):
        bandwidth = statistics.median(float(row["bandwidth"]) for row in rows if row.get("bandwidth"))
        found.append(
            ("Peaks of the run", f"{statistics.median(peaks):.0f} GFLOP/s dense float32, {bandwidth:.1f} GB/s")
        )
    overhead = [float(row["overhead_s"]) for row in rows if row.get("overhead_s")]
    if overhead:
        found.append(("An empty call", f"{statistics.median(overhead) * 1e9:.0f} ns, in every time; not subtracted"))
    last = rows[-1]
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items() if version)
    return [
        *found,
        ("Threads", ", ".join(sorted({str(row["threads"]) for row in rows}))),
        ("Versions", versions),
        ("Commit", ", ".join(sorted({str(row["commit"]) for row in rows}))),
        ("Seed", ", ".join(sorted({str(row["seed"]) for row in rows}))),
        ("When", f"{min(row['when'] for row in rows)} to {max(row['when'] for row in rows)}"),
    ]


def _embedded(rows: Sequence[Mapping[str, Any]]) -> str:
    """All rows for the page's script: what they share once, the rest as lists. Safe inside a script element."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    texts = {name: {json.dumps(row.get(name), sort_keys=True) for row in rows} for name in names}
    common = {name: rows[0].get(name) for name in names if len(texts[name]) == 1}
    fields = [name for name in names if name not in common]
    lists = [[row.get(name) for name in fields] for row in rows]
    text = json.dumps({"common": common, "fields": fields, "rows": lists}, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")
