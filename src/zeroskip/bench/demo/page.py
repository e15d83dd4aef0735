"""The report page: one HTML file that needs nothing else, and the same in short for the terminal."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..drawing import number
from ..tables import megabytes, seconds, table
from ..webpage import percent, render_template
from . import figures
from .figures import is_dense, nearest_choice

_LEVEL_MARKS = {"good": "+", "fair": "~", "poor": "!"}


def render(doc: Mapping[str, Any]) -> str:
    """The page for a demo's results.

    Raises:
        MissingDependency: If jinja2 or matplotlib are not installed.
    """
    sizes = plan_sizes(doc["layers"])
    return render_template(
        "demo.html.j2",
        doc=doc,
        title=title(doc),
        tiles=tiles(doc),
        plan=plan_rows(doc["layers"]),
        drawings=drawings(doc, sizes),
        facts=facts(doc),
        dense_layers=dense_layers(doc["layers"], sizes),
        main_size=main_size(doc, sizes),
    )


def title(doc: Mapping[str, Any]) -> str:
    """The model and what was done to it."""
    return f"{pretty_name(doc['model']['name'])}, {doc['pruning']['achieved']:.0%} of its linear weights removed"


def pretty_name(name: str) -> str:
    """The full name of a model that has a short one."""
    full = {"minilm": "all-MiniLM-L6-v2", "mpnet": "all-mpnet-base-v2", "smollm2": "SmolLM2-135M-Instruct"}
    return full.get(name, name)


def tiles(doc: Mapping[str, Any]) -> list[dict[str, str]]:
    """The few numbers at the top."""
    found = []
    for speed in doc["speeds"]:
        rates = {engine["key"]: engine["rate"] for engine in speed["engines"] if engine["status"] == "ok"}
        for rival, name in (("torch", "torch"), ("onnxruntime", "ONNX Runtime")):
            if rival in rates:
                ratio = rates["zeroskip_sparse"] / rates[rival]
                found.append({"value": f"{ratio:.2f}x", "label": f"{speed['title'].lower()} speed of dense {name}"})
    memory = {row["key"]: row["bytes"] for row in doc["sizes"]["memory"]}
    share = memory["zeroskip_sparse"] / memory["torch"]
    found.append({"value": f"{share:.0%}", "label": "of the dense weights' memory"})
    quality = doc["quality"]
    if "cosine" in quality:
        found.append({"value": f"{quality['cosine']['mean']:.3f}", "label": "mean cosine to the dense embedding"})
        kept = quality["neighbours"]
        found.append({"value": f"{kept['kept']:.0%}", "label": f"of the {kept['k']} nearest neighbours kept"})
    else:
        ratio = quality["perplexity"]["sparse"] / quality["perplexity"]["dense"]
        found.append({"value": f"{ratio:.2f}x", "label": "the perplexity of dense (1 is best)"})
        found.append({"value": f"{quality['top1']:.0%}", "label": "of likeliest tokens unchanged"})
    return found


def plan_sizes(layers: Sequence[Mapping[str, Any]]) -> list[int]:
    """The batch sizes of the plan, ascending."""
    return sorted({choice["n"] for layer in layers for choice in layer["choices"]})


def main_size(doc: Mapping[str, Any], sizes: Sequence[int]) -> int:
    """The batch size that matters most: the largest, for prompts and batches of texts."""
    return sizes[-1] if sizes else 1


def dense_layers(layers: Sequence[Mapping[str, Any]], sizes: Sequence[int]) -> int:
    """How many layers run dense at every batch size."""
    return sum(all(is_dense(choice["kernel"]) for choice in layer["choices"]) for layer in layers) if sizes else 0


def drawings(doc: Mapping[str, Any], sizes: Sequence[int]) -> dict[str, Any]:
    """All figures, as SVG."""
    found: dict[str, Any] = {
        "speeds": [figures.speed_bars(speed) for speed in doc["speeds"]],
        "sizes": figures.size_bars(doc["sizes"]),
        "sparsity": figures.layer_sparsity(doc["layers"], doc["pruning"]["achieved"]),
        "times": [(n, figures.layer_times(doc["layers"], n)) for n in _shown_sizes(doc, sizes)],
    }
    quality = doc["quality"]
    if "cosine" in quality:
        found["quality"] = figures.cosine_histogram(quality["cosine"]["values"])
    else:
        pairs = [(key, quality["perplexity"][key], f"{quality['perplexity'][key]:.1f}") for key in ("dense", "sparse")]
        found["quality"] = figures.pair_bars("perplexity", pairs, "perplexity (lower is better)")
    return found


def _shown_sizes(doc: Mapping[str, Any], sizes: Sequence[int]) -> list[int]:
    """Encoders run many tokens at a time, decoders one or many."""
    if not sizes:
        return []
    return [sizes[-1]] if doc["model"]["kind"] == "encoder" else sorted({sizes[0], sizes[-1]})


def plan_rows(layers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The plan for people: layers that are equal but for their number share a row for each batch size."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for layer in layers:
        name = re.sub(r"(?<![^.])\d+(?![^.])", "*", layer["name"])
        kernels = tuple((choice["n"], choice["kernel"]) for choice in layer["choices"])
        groups.setdefault((name, *layer["shape"], layer["format"], layer["values"], kernels), []).append(layer)
    return [_plan_row(key[0], found) for key, found in groups.items()]


def _plan_row(name: str, layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    first = layers[0]
    choices = []
    for choice in first["choices"]:
        same = [nearest_choice(layer, choice["n"]) for layer in layers]
        spent, dense = (_mean([item[key] for item in same]) for key in ("time_s", "dense_time_s"))
        choices.append(
            {
                "n": choice["n"],
                "kernel": choice["kernel"],
                "time": seconds(spent),
                "dense": seconds(dense),
                "speedup": f"{dense / spent:.2f}x" if spent and dense else "",
                "reason": choice["reason"],
                "is_dense": is_dense(choice["kernel"]),
            }
        )
    return {
        "name": name,
        "count": len(layers),
        "shape": "x".join(map(str, first["shape"])),
        "sparsity": percent(sum(layer["sparsity"] for layer in layers) / len(layers)),
        "stored": f"{first['format']} {first['values']}",
        "choices": choices,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def facts(doc: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is needed to reproduce the figures."""
    where, versions = doc["machine"], doc["versions"]
    pruning, made = doc["pruning"], doc["compile"]
    names = ("python", "torch", "onnxruntime", "transformers", "numpy")
    return [
        ("Command", doc["command"]),
        ("Processor", f"{where['cpu']}, {where['cores']} cores, {where['isa']}"),
        ("Threads", f"{doc['threads']}, the same for every engine"),
        ("Memory", f"{where['memory_bytes'] / 2**30:.0f} GiB"),
        ("System", where["system"]),
        ("zeroskip", versions["zeroskip"] + (f", commit {doc['commit']}" if doc["commit"] else "")),
        ("Versions", ", ".join(f"{name} {versions.get(name) or 'not installed'}" for name in names)),
        ("Texts", doc["texts"]),
        (
            "Pruning",
            "{method}, {pattern}, refit {refit}, {samples} sequences, {seconds:.0f} s".format_map(pruning),
        ),
        (
            "Compiling",
            f"{made['seconds']:.1f} s with measuring; {made['values']} values; loads in {made['load_seconds']:.2f} s",
        ),
        ("Seed", str(doc["seed"])),
        ("When", doc["when"]),
    ]


def terminal(doc: Mapping[str, Any]) -> str:
    """The results as text."""
    parts = [title(doc), ""]
    for speed in doc["speeds"]:
        engines = table([_engine_row(speed, row) for row in speed["engines"]])
        parts += [f"{speed['title']}: {speed['what']}", engines, ""]
    rows = [
        {"size": kind, "of": row["label"], "bytes": megabytes(row["bytes"])}
        for kind in ("disk", "memory")
        for row in doc["sizes"][kind]
    ]
    parts += [table(rows), "", f"quality: {doc['quality_line']}", ""]
    parts += [f"check: {check['text']}: {'ok' if check['passed'] else 'FAILED'}" for check in doc["checks"]]
    parts.append("")
    plan = [
        {
            "layers": f"{row['name']} ({row['count']})",
            "shape": row["shape"],
            "zeros": row["sparsity"],
            "tokens": str(choice["n"]),
            "kernel": choice["kernel"],
            "time": choice["time"],
            "dense": choice["dense"],
            "against dense": choice["speedup"],
            "why": choice["reason"],
        }
        for row in plan_rows(doc["layers"])
        for choice in row["choices"]
    ]
    parts += [table(plan), ""]
    parts += [f"[{_LEVEL_MARKS[item['level']]}] {item['title']}. {item['text']}" for item in doc["verdict"]]
    parts += [f"[i] {note}" for note in doc["model"]["notes"]]
    return "\n".join(parts)


def _engine_row(speed: Mapping[str, Any], engine: Mapping[str, Any]) -> dict[str, str]:
    torch = next((row for row in speed["engines"] if row["key"] == "torch" and row["status"] == "ok"), None)
    done = engine["status"] == "ok"
    return {
        "engine": engine["label"],
        speed["unit"]: number(engine["rate"]) if done else "",
        "range": f"{number(engine['rate_low'])} .. {number(engine['rate_high'])}" if done else "",
        "vs torch": f"{engine['rate'] / torch['rate']:.2f}x" if done and torch else "",
        "first token": seconds(engine.get("first_token_s")) if done else "",
        "how": engine["how"] if done else engine["reason"],
    }
