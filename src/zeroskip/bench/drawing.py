"""Drawings for report pages: matplotlib figures as inline SVG, in the page's own light and dark colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._errors import MissingDependency

# matplotlib wants real colours: these stand for the page's variables and are replaced when the drawing is written.
COLOURS = {
    "#010101": "var(--ink)",
    "#020202": "var(--muted)",
    "#030303": "var(--line)",
    "#040404": "var(--sparse)",
    "#050505": "var(--dense)",
    "#060606": "var(--torch)",
    "#070707": "var(--onnx)",
    "#080808": "var(--poor)",
}
INK, MUTED, LINE, SPARSE, DENSE, TORCH, ONNX, POOR = COLOURS

WIDTH_IN, WIDE_IN = 5.0, 10.5
_SETTINGS: Mapping[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "text.color": INK,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "figure.constrained_layout.use": True,
}


@contextmanager
def drawing(name: str, width: float, height: float) -> Iterator[tuple[Any, Any, list[str]]]:
    """A figure with one axes; what it is drawn as is put into the list."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            f"report: the page's figures need matplotlib ({error}); pip install 'zeroskip[demo]'."
        ) from error
    settings: Any = {**_SETTINGS, "svg.hashsalt": name}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height))
        done: list[str] = []
        yield figure, figure.subplots(), done
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
        done.append(_inline(stream.getvalue(), name))


# What they are on paper: the page's light colours.
PAPER = dict(
    zip(COLOURS, ("#16202b", "#5b6773", "#dfe4e8", "#0d8275", "#7cc4ba", "#9aa5b1", "#bfc7cf", "#c2571a"), strict=True)
)


@contextmanager
def picture(path: Path, width: float, height: float) -> Iterator[tuple[Any, Callable[[str], str]]]:
    """One axes of a picture on white, and what gives the colour that stands for one of the page's."""
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(f"report: pictures need matplotlib ({error}); pip install 'zeroskip[demo]'.") from error
    settings: Any = {name: PAPER.get(value, value) for name, value in _SETTINGS.items()}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(width, height))
        yield figure.subplots(), PAPER.__getitem__
        figure.savefig(path, dpi=150, facecolor="white")


def _inline(svg: str, name: str) -> str:
    """The SVG for a place inside HTML: no header, no metadata, no outside names, colours and font of the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<!--.*?-->", "", svg, flags=re.S)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg)
    svg = svg.replace("xlink:href", "href")
    svg = re.sub(r"font: ([\d. a-z]*?)([\d.]+)px [^;\"]*", r"font: \1\2px var(--font)", svg)
    for sentinel, variable in COLOURS.items():
        svg = svg.replace(sentinel, variable)
    svg = re.sub(
        r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', rf'<svg \1 class="figure {name}" aria-hidden="true">', svg, count=1
    )
    return re.sub(r"\n\s*\n+", "\n", svg).strip()


def number(value: float) -> str:
    """Three significant digits, whole numbers from 100 on."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"


def names(axes: Any, labels: Sequence[str]) -> None:
    """Labels of horizontal bars, the first on top."""
    axes.set_yticks(range(len(labels)), labels)
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def light_grid(axes: Any, axis: str) -> None:
    """Thin lines along one axis, no ticks."""
    axes.grid(axis=axis, linewidth=0.6)
    axes.tick_params(axis=axis, length=0)
    if axis == "y":
        axes.spines["left"].set_visible(False)


def integers(axes: Any) -> None:
    """Whole numbers below."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
