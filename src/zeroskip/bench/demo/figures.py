"""The figures of the demo's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing import (
    DENSE,
    INK,
    ONNX,
    POOR,
    SPARSE,
    TORCH,
    WIDE_IN,
    WIDTH_IN,
    drawing,
    integers,
    light_grid,
    names,
    number,
)

ENGINE_COLOURS = {"torch": TORCH, "onnxruntime": ONNX, "zeroskip_dense": DENSE, "zeroskip_sparse": SPARSE}


def speed_bars(speed: Mapping[str, Any]) -> str:
    """A bar an engine, with its rate and how it compares to torch."""
    engines = [engine for engine in speed["engines"] if engine["status"] == "ok"]
    base = next((engine["rate"] for engine in engines if engine["key"] == "torch"), None)
    with drawing(f"speed-{speed['key']}", WIDTH_IN, 0.5 + 0.44 * len(engines)) as (_, axes, done):
        top = max(engine["rate"] for engine in engines)
        for place, engine in enumerate(engines):
            colour = ENGINE_COLOURS.get(engine["key"], TORCH)
            axes.barh(place, engine["rate"], color=colour, height=0.62)
            label = f"{number(engine['rate'])}"
            if base and engine["key"] != "torch":
                label += f"  ({engine['rate'] / base:.2f}x)"
            bold = "bold" if engine["key"] == "zeroskip_sparse" else "normal"
            axes.text(engine["rate"] + 0.015 * top, place, label, va="center", color=INK, fontweight=bold)
        names(axes, [engine["label"] for engine in engines])
        axes.set_xlim(0, top * 1.3)
        axes.set_xlabel(speed["unit"])
        light_grid(axes, "x")
    return done[0]


def size_bars(sizes: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Bytes on disk and in memory, dense against sparse."""
    rows = [(kind, row) for kind in ("disk", "memory") for row in sizes.get(kind, ())]
    with drawing("sizes", WIDTH_IN, 0.5 + 0.44 * len(rows)) as (_, axes, done):
        top = max(row["bytes"] for _, row in rows)
        for place, (_kind, row) in enumerate(rows):
            axes.barh(place, row["bytes"] / 1e6, color=ENGINE_COLOURS.get(row["key"], TORCH), height=0.62)
            bold = "bold" if row["key"] == "zeroskip_sparse" else "normal"
            axes.text(
                (row["bytes"] + 0.015 * top) / 1e6,
                place,
                f"{number(row['bytes'] / 1e6)} MB",
                va="center",
                fontweight=bold,
            )
        names(axes, [f"{row['label']}, {kind}" for kind, row in rows])
        axes.set_xlim(0, top * 1.25 / 1e6)
        axes.set_xlabel("MB")
        light_grid(axes, "x")
    return done[0]


def cosine_histogram(values: Sequence[float]) -> str:
    """How close the sparse embedding of each text is to the dense one."""
    with drawing("cosine", WIDTH_IN, 2.5) as (_, axes, done):
        low = min(0.5, min(values)) if min(values) < 0.7 else min(0.8, min(values))
        axes.hist(values, bins=32, range=(low, 1.0), color=SPARSE)
        middle = sum(values) / len(values)
        axes.axvline(middle, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        top = axes.get_ylim()[1]
        right = middle > (low + 1) / 2
        axes.text(
            middle + (-0.01 if right else 0.01) * (1 - low),
            top * 0.93,
            f"mean {middle:.3f}",
            ha="right" if right else "left",
        )
        axes.set_xlabel("cosine of sparse and dense embedding (1 = same direction)")
        axes.set_ylabel("texts")
        axes.set_xlim(low, 1.0)
        light_grid(axes, "y")
    return done[0]


def pair_bars(name: str, pairs: Sequence[tuple[str, float, str]], unit: str) -> str:
    """Two or more named values of one kind, dense in its colour and the rest in the sparse one."""
    with drawing(name, WIDTH_IN, 0.5 + 0.44 * len(pairs)) as (_, axes, done):
        top = max(value for _, value, _ in pairs)
        for place, (_label, value, text) in enumerate(pairs):
            axes.barh(place, value, color=DENSE if place == 0 else SPARSE, height=0.62)
            axes.text(value + 0.015 * top, place, text, va="center", fontweight="normal" if place == 0 else "bold")
        names(axes, [label for label, _, _ in pairs])
        axes.set_xlim(0, top * 1.25)
        axes.set_xlabel(unit)
        light_grid(axes, "x")
    return done[0]


def layer_times(layers: Sequence[Mapping[str, Any]], n: int) -> str:
    """Each linear layer's time with the chosen kernel beside its fastest dense kernel, in the order of the model."""
    chosen, dense, kept = [], [], []
    for layer in layers:
        choice = nearest_choice(layer, n)
        spent, baseline = choice["time_s"], choice["dense_time_s"]
        if spent is None or baseline is None:
            continue
        chosen.append(spent * 1e3)
        dense.append(baseline * 1e3)
        kept.append(is_dense(choice["kernel"]))
    with drawing(f"layers-{n}", WIDE_IN, 3.1) as (_, axes, done):
        places = range(1, len(chosen) + 1)
        axes.bar(places, dense, color=TORCH, width=0.86, label="dense kernel", alpha=0.45)
        colours = [POOR if stays else SPARSE for stays in kept]
        axes.bar(places, chosen, color=colours, width=0.56, label="chosen kernel")
        axes.set_xlabel(f"linear layers in order ({len(chosen)})")
        axes.set_ylabel(f"ms for {n} token{'s' * (n != 1)}")
        axes.set_xlim(0.3, len(chosen) + 0.7)
        integers(axes)
        light_grid(axes, "y")
    return done[0]


def layer_sparsity(layers: Sequence[Mapping[str, Any]], target: float) -> str:
    """Share of zero weights of each linear layer."""
    with drawing("sparsity", WIDTH_IN, 2.3) as (_, axes, done):
        places = range(1, len(layers) + 1)
        axes.bar(places, [100 * layer["sparsity"] for layer in layers], color=SPARSE, width=0.8)
        axes.axhline(100 * target, color=INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_ylim(0, 100)
        axes.set_xlim(0.3, len(layers) + 0.7)
        axes.set_ylabel("% zeros")
        axes.set_xlabel(f"linear layers in order ({len(layers)})")
        integers(axes)
        light_grid(axes, "y")
    return done[0]


def nearest_choice(layer: Mapping[str, Any], n: int) -> Mapping[str, Any]:
    """The choice of a layer whose batch size is nearest to `n`."""
    found: Mapping[str, Any] = min(layer["choices"], key=lambda choice: abs(choice["n"] - n))
    return found


def is_dense(kernel: str) -> bool:
    """Whether a kernel's name says that it multiplies from a dense matrix."""
    return "_dense_" in kernel
