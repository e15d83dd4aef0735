"""The picture of an analysis, and a page around it: speed-up against sparsity, a panel for each shape and N."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..._errors import MissingDependency
from . import tables

Doc = Mapping[str, Any]

# Distinct in grey and for the colour-blind (Okabe and Ito).
COLOURS = {"float32": "#0072b2", "bfloat16": "#d55e00", "float16": "#e69f00", "int8": "#009e73", "int4": "#cc79a7"}
_MARKS = {"csr": "o", "bitmask": "s", "nm": "^", "bsr": "D"}
_PANEL_IN = (3.1, 2.7)
_SETTINGS: Mapping[str, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "svg.fonttype": "none",
    "svg.hashsalt": "zeroskip-analyze",
    "figure.constrained_layout.use": True,
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 78rem; padding: 0 1rem; color: #1b1f24;
  background: #fff; }
table { border-collapse: collapse; font-size: 13px; margin: 1rem 0; }
th, td { border-bottom: 1px solid #d8dee4; padding: 0.2rem 0.7rem; text-align: left; white-space: nowrap; }
.wide { overflow-x: auto; }
svg { max-width: 100%; height: auto; }
"""


def check_matplotlib() -> None:
    """Refuse before anything is measured.

    Raises:
        MissingDependency: If matplotlib is not installed.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise MissingDependency(
            f"analyze: the picture needs matplotlib ({error}); pip install 'zeroskip[demo]', or leave --png and "
            "--html out."
        ) from error


def save_png(doc: Doc, path: Any) -> None:
    """The picture as a PNG file."""
    _draw(doc, Path(path), "png")


def save_html(analysis: Any, path: Any) -> None:
    """A page with the picture and both tables; it needs no other file."""
    stream = io.StringIO()
    _draw(analysis.doc, stream, "svg")
    Path(path).write_text(page(analysis.doc, _inline(stream.getvalue())), encoding="utf-8")


def page(doc: Doc, svg: str) -> str:
    """The page around a picture."""
    machine = doc["machine"]
    title = "When sparse beats dense" + (f": {doc['model']['name']}" if doc["model"] else "")
    where = f"{machine['cpu']}, {machine['isa']}, {doc['threads']} threads; zeroskip {doc['versions']['zeroskip']}, "
    where += f"{doc['when']}"
    failures = [tables.failure_line(shape, item) for shape in doc["shapes"] for item in shape["failures"]]
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>{html.escape(where)}</p>",
        svg,
        "<p>Solid: measured, the best format of each value type. Dashed: the roofline of that format.</p>",
        "<h2>The best format</h2>",
        _table(list(tables.summary_rows(doc))),
        *(f"<p>{html.escape(line)}</p>" for line in tables.legend(doc)),
        "<h2>Every format</h2>",
        _table(list(tables.format_rows(doc))),
        *(["<h2>Failures</h2>"] if failures else []),
        *(f"<p>{html.escape(line)}</p>" for line in failures),
    ]
    head = f'<meta charset="utf-8"><title>{html.escape(title)}</title><style>{_STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(parts) + "\n</body></html>\n"


def _table(rows: Sequence[Mapping[str, str]]) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in rows[0])
    body = ["".join(f"<td>{html.escape(cell)}</td>" for cell in row.values()) for row in rows]
    lines = "".join(f"<tr>{cells}</tr>\n" for cells in body)
    return f'<div class="wide"><table><tr>{head}</tr>\n{lines}</table></div>'


def _inline(svg: str) -> str:
    """The SVG for a place inside HTML: no header, no metadata, no outside names."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    return svg.replace("xlink:href", "href").strip()


def _draw(doc: Doc, target: Any, kind: str) -> None:
    check_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    shapes, ns = doc["shapes"], doc["ns"]
    width, height = _PANEL_IN
    settings: Any = dict(_SETTINGS)
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width * len(ns) + 0.4, height * len(shapes) + 0.6))
        panels = figure.subplots(len(shapes), len(ns), squeeze=False, sharex=True, sharey="row")
        for row, shape in zip(panels, shapes, strict=True):
            for axes, size in zip(row, shape["sizes"], strict=True):
                _panel(axes, size)
                axes.set_title(f"{shape['m']}x{shape['k']}, N = {size['n']}" + (", cold" if size["cold"] else ""))
            row[0].set_ylabel("speed-up over dense")
        for axes in panels[-1]:
            axes.set_xlabel("sparsity, %")
        figure.legend(handles=_legend(doc), loc="outside lower center", ncols=5, frameon=False)
        metadata = {"Date": None} if kind == "svg" else {}
        figure.savefig(target, format=kind, dpi=150, metadata=metadata)


def _panel(axes: Any, size: Mapping[str, Any]) -> None:
    """One N: each value type's best format, its roofline, and dense at 1."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.axhline(1.0, color="#57606a", linewidth=1.2)
    for curve in size["curves"]:
        if curve["format"] != size["best"][curve["dtype"]]:
            continue
        colour, mark = COLOURS[curve["dtype"]], _MARKS[curve["format"].split(":")[0]]
        places = [100 * point["sparsity"] for point in curve["points"]]
        axes.plot(places, [point["speedup"] for point in curve["points"]], color=colour, marker=mark, markersize=3.5)
        bounds = [math.nan if point["bound"] is None else point["bound"] for point in curve["points"]]
        axes.plot(places, bounds, color=colour, linewidth=0.9, linestyle="--")
    axes.set_yscale("log", base=2)
    axes.set_xlim(0, 100)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="#d8dee4", linewidth=0.5)


def _legend(doc: Doc) -> list[Any]:
    """Colours of value types, marks of formats, and what the lines are."""
    from matplotlib.lines import Line2D

    kinds = list(dict.fromkeys(form.split(":")[0] for form in doc["formats"]))
    lines = [Line2D([], [], color=COLOURS[value], label=value) for value in doc["values"]]
    lines += [Line2D([], [], color="#57606a", marker=_MARKS[k], linestyle="", markersize=4, label=k) for k in kinds]
    lines.append(Line2D([], [], color="#57606a", linewidth=0.9, linestyle="--", label="roofline"))
    lines.append(Line2D([], [], color="#57606a", linewidth=1.2, label="dense"))
    return lines
