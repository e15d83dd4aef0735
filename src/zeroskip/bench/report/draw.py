"""Pictures of figures, with matplotlib: inline for the page, in its colours, and as PNG."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..drawing import DENSE, INK, LINE, MUTED, ONNX, POOR, SPARSE, TORCH, WIDE_IN, drawing, light_grid, picture
from .data import ABOVE, BELOW
from .data import DENSE as BY_DENSE
from .data import OURS as BY_OURS
from .data import RIVAL as BY_RIVAL
from .figures import Box, Figure

Paint = Callable[[str], str]

_KNOWN = {BELOW: SPARSE, ABOVE: POOR, BY_OURS: SPARSE, BY_RIVAL: POOR, BY_DENSE: TORCH}
_OTHERS = (DENSE, SPARSE, INK, MUTED, ONNX, TORCH)  # none that means somebody elsewhere, at first
HEIGHT_IN = 4.2


def svg(figure: Figure) -> str:
    """The figure for a place inside HTML."""
    with drawing(figure.name, WIDE_IN, _height(figure)) as (_, axes, done):
        _DRAW[figure.kind](axes, figure, lambda colour: colour)
    return done[0]


def png(figure: Figure, path: Path) -> None:
    """The figure as a picture on white."""
    with picture(path, WIDE_IN, _height(figure)) as (axes, paint):
        axes.set_title(figure.title, loc="left", fontsize=12, pad=30 if figure.kind == "boxes" else 8)
        _DRAW[figure.kind](axes, figure, paint)


def _height(figure: Figure) -> float:
    if figure.kind == "boxes":
        return 1.3 + 0.27 * len(figure.data) + 0.19 * len({box.place for box in figure.data})
    return HEIGHT_IN


def _boxes(axes: Any, figure: Figure, paint: Paint) -> None:
    """Boxes lie, so that names of places have room: one band a place, one box a hue. Whiskers are tenths."""
    boxes: list[Box] = figure.data
    places = list(dict.fromkeys(box.place for box in boxes))
    hues = list(dict.fromkeys(box.hue for box in boxes))
    colours = colours_of(hues)
    at, ticks = 0.0, []
    for place in places:
        own = [box for box in boxes if box.place == place]
        ticks.append(at + (len(own) - 1) / 2)
        for box in own:
            _one_box(axes, box, at, paint(colours[box.hue]), paint)
            at += 1
        at += 0.7
    axes.set_yticks(ticks, places)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.set_xscale("log")
    if figure.mark is not None:
        axes.axvline(figure.mark, color=paint(TORCH), linewidth=1.4, linestyle="--", zorder=0.5)
    _plain_numbers(axes.xaxis)
    axes.set_xlabel(figure.axis)
    light_grid(axes, "x")
    axes.spines["left"].set_visible(False)
    for label in axes.get_yticklabels():
        label.set_color(paint(INK))
    axes.margins(y=0.02)
    if len(hues) > 1:
        _legend(axes, {hue: paint(colours[hue]) for hue in hues})


def _one_box(axes: Any, box: Box, at: float, colour: str, paint: Paint) -> None:
    stats = _five(box.values)
    shown = [{"med": stats[2], "q1": stats[1], "q3": stats[3], "whislo": stats[0], "whishi": stats[4], "fliers": []}]
    line = {"color": colour, "linewidth": 1.2}
    if stats[0] == stats[4]:  # a box of one value would be a line
        axes.plot([stats[2]], [at], marker="o", markersize=6, color=colour)
    axes.bxp(
        shown,
        positions=[at],
        widths=0.72,
        orientation="horizontal",
        patch_artist=True,
        showfliers=False,
        boxprops={"facecolor": colour, "edgecolor": colour},
        medianprops={"color": paint(INK), "linewidth": 1.6},
        whiskerprops=line,
        capprops=line,
        manage_ticks=False,
    )
    text = f"{_short(stats[2])}  ({len(box.values)})"
    axes.annotate(
        text, (stats[4], at), xytext=(5, 0), textcoords="offset points", va="center", fontsize=8, color=paint(MUTED)
    )


def _five(values: Any) -> tuple[float, float, float, float, float]:
    import numpy as np

    found = np.quantile(np.asarray(values, dtype=float), [0.1, 0.25, 0.5, 0.75, 0.9])
    return tuple(float(value) for value in found)  # type: ignore[return-value]


def _lines(axes: Any, figure: Figure, paint: Paint) -> None:
    for side, points in figure.data.items():
        if not points:
            continue
        x, low, middle, high = zip(*((100 * a, b, c, d) for a, b, c, d in points), strict=True)
        colour = paint(_KNOWN[side])
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(x, middle, color=colour, marker="o", markersize=4, linewidth=1.8, label=side)
    axes.axhline(1.0, color=paint(TORCH), linewidth=1.4, linestyle="--", label="best dense")
    axes.set_yscale("log")
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("zeros, %")
    axes.set_ylabel(figure.axis)
    light_grid(axes, "y")
    axes.legend(frameon=False, labelcolor=paint(MUTED))


def _heat(axes: Any, figure: Figure, paint: Paint) -> None:
    """Squares as dark as the share that ours wins; the number in each, and who has most of the rest."""
    from matplotlib.patches import Rectangle

    data = figure.data
    for y, width in enumerate(data["rows"]):
        for x, place in enumerate(data["places"]):
            shares: Mapping[str, float] = data["cells"].get((width, place), {})
            if not shares:
                axes.text(x, y, "-", ha="center", va="center", color=paint(MUTED))
                continue
            won = shares.get(BY_OURS, 0.0)
            colour = paint(SPARSE if won >= 0.5 else POOR)
            square = Rectangle((x - 0.47, y - 0.45), 0.94, 0.9, facecolor=colour, alpha=0.15 + 0.6 * abs(won - 0.5) * 2)
            axes.add_patch(square)
            rest = max(((share, side) for side, share in shares.items() if side != BY_OURS), default=None)
            axes.text(x, y - 0.08, f"{won:.0%}", ha="center", va="center", fontsize=12, color=paint(INK))
            count = f"of {data['counts'][width, place]}"
            axes.text(x + 0.44, y - 0.36, count, ha="right", va="center", fontsize=7, color=paint(INK))
            if rest is not None and rest[0] > 0:
                axes.text(x, y + 0.26, rest[1], ha="center", va="center", fontsize=7, color=paint(INK))
    axes.set_xticks(range(len(data["places"])), data["places"])
    axes.set_yticks(range(len(data["rows"])), [f"{width}" for width in data["rows"]])
    axes.set_xlim(-0.5, len(data["places"]) - 0.5)
    axes.set_ylim(len(data["rows"]) - 0.5, -0.5)
    axes.set_xlabel("zeros")
    axes.set_ylabel("N, or depth")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _steps(axes: Any, figure: Figure, paint: Paint) -> None:
    for side, (calls, never) in figure.data.items():
        total = len(calls) + never
        x = [0.8, *(max(1, call) for call in calls), 10 * max([10, *calls])]
        y = [0.0, *((i + 1) / total for i in range(len(calls))), len(calls) / total]
        axes.step(x, [100 * share for share in y], where="post", color=paint(_KNOWN[side]), linewidth=1.8)
        text = f"{side}: {never} of {total} never" if never else side
        axes.plot([], [], color=paint(_KNOWN[side]), linewidth=1.8, label=text)
    axes.set_xscale("log")
    _plain_numbers(axes.xaxis)
    axes.set_ylim(0, 102)
    axes.set_xlabel("calls")
    axes.set_ylabel("% of matrices")
    light_grid(axes, "y")
    axes.legend(frameon=False, labelcolor=paint(MUTED), loc="lower right")


def _scatter(axes: Any, figure: Figure, paint: Paint) -> None:
    data = figure.data
    groups = list(dict.fromkeys(group for _, _, group in data["points"]))
    colours = colours_of(groups)
    for group in groups:
        x, y = zip(*((a, b) for a, b, own in data["points"] if own == group), strict=True)
        axes.scatter(x, y, s=14, color=paint(colours[group]), alpha=0.7, linewidths=0, label=group)
    ends = axes.get_xlim()
    low, high = max(min(a for a, _, _ in data["points"]) / 2, 1e-3), max(ends[1], 1.0) * 2
    corner = data["peak"] / data["bandwidth"]
    line = {"color": paint(INK), "linewidth": 1.2}
    axes.plot([low, min(corner, high)], [low * data["bandwidth"], min(corner, high) * data["bandwidth"]], **line)
    if corner < high:
        axes.plot([corner, high], [data["peak"]] * 2, **line)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain_numbers(axes.xaxis)
    _plain_numbers(axes.yaxis)
    axes.set_xlabel("useful operations a byte of the working set")
    axes.set_ylabel("GFLOP/s")
    axes.set_title(
        f"{data['peak']:.0f} GFLOP/s, {data['bandwidth']:.1f} GB/s", fontsize=9, loc="right", color=paint(MUTED)
    )
    light_grid(axes, "y")
    axes.legend(frameon=False, labelcolor=paint(MUTED), loc="lower right")


def colours_of(hues: list[str]) -> dict[str, str]:
    """A colour each: the known ones their own, the others in turn."""
    rest = [colour for colour in _OTHERS if colour not in {_KNOWN.get(hue) for hue in hues}]
    unknown = [hue for hue in hues if hue not in _KNOWN]
    return {hue: _KNOWN.get(hue) or rest[unknown.index(hue) % len(rest)] for hue in hues}


def _legend(axes: Any, colours: Mapping[str, str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, label=hue) for hue, colour in colours.items()]
    axes.legend(
        handles=handles, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0), ncols=len(handles), fontsize=9
    )


def _plain_numbers(axis: Any) -> None:
    """Ticks written out: at 1, 2, 5 of each power of ten, at powers alone over many, evenly within one."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

    low, high = axis.get_view_interval()
    spans = math.log10(high / low) if low > 0 else 1.0
    steps = (1.0, 2.0, 5.0) if spans <= 3.5 else (1.0,)
    axis.set_major_locator(MaxNLocator(6) if spans < 0.7 else LogLocator(subs=steps, numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _place: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


_DRAW: dict[str, Callable[[Any, Figure, Paint], None]] = {
    "boxes": _boxes,
    "lines": _lines,
    "heat": _heat,
    "steps": _steps,
    "scatter": _scatter,
}
__all__ = ["LINE", "colours_of", "png", "svg"]
