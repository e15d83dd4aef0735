"""Bytes of packed weights over those of dense float32: what sparsity saves in memory.

    python benchmarks/memory.py [--sparsity 0.5] [--models minilm smollm2] [--json]

First every native kernel of this processor, on random matrices with the shapes of the linear layers of MiniLM and
SmolLM2: unstructured, for nm with N of 16 kept, for bsr with blocks of 16x1. Then whole models, pruned at random and
compiled: "memory" packs each layer once, "balanced" weighs speed and may keep a second packing for other batch sizes.
Counted are the layers that were pruned; "all weights" has embeddings and everything else as well. Needs no data, only
the packages of the models; --models without a name leaves them out.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from _common import parser, pruned_copy, silent

import zeroskip
from zeroskip import kernels, models
from zeroskip.bench import machine
from zeroskip.bench.demo.flow import parameters
from zeroskip.bench.operands import Problem
from zeroskip.runtime.packing import native_kernels

# Linear layers by shape, and how often each is there.
LAYERS = {
    "minilm": {(384, 384): 24, (1536, 384): 6, (384, 1536): 6},
    "smollm2": {(576, 576): 60, (192, 576): 60, (1536, 576): 60, (576, 1536): 30},
}
VALUES = ("float32", "bfloat16")
OPTIMIZE = ("memory", "balanced")


def main() -> None:
    """Print a line a kernel, then a line a compiled model."""
    options_of = parser(__doc__)
    options_of.add_argument("--sparsity", type=float, default=0.5)
    options_of.add_argument("--models", nargs="*", default=["minilm"])
    options_of.add_argument("--json", action="store_true")
    options = options_of.parse_args()
    found = {
        "machine": machine.describe(kernels.num_threads()),
        "sparsity": options.sparsity,
        "kernels": [kernel_row(kernel, options.sparsity) for kernel in native_kernels() if kernel.dtype in VALUES],
        "models": [row for name in options.models for row in model_rows(name, options.sparsity)],
    }
    print(json.dumps(found) if options.json else text_of(found))


def kernel_row(kernel: kernels.Kernel, sparsity: float) -> dict[str, Any]:
    """Packed bytes of a kernel over dense float32, for the layers of each model."""
    pattern = {"nm": f"{round(16 * (1 - sparsity))}:16", "bsr": "block:16x1"}.get(kernel.format, "unstructured")
    row: dict[str, Any] = {"kernel": kernel.name, "dtype": kernel.dtype, "pattern": pattern}
    for model, layers in LAYERS.items():
        packed = sum(
            count * kernel.prepare(Problem(shape, sparsity, pattern, kernel.dtype, 0).matrix()).nbytes
            for shape, count in layers.items()
        )
        row[model] = packed / sum(4 * count * shape[0] * shape[1] for shape, count in layers.items())
    return row


def model_rows(name: str, sparsity: float) -> list[dict[str, Any]]:
    """A model pruned at random, compiled for each value type and goal."""
    dense = models.load(name)
    pruned = pruned_copy(dense, method="random", sparsity=sparsity)
    return [model_row(pruned, values, optimize) for values in VALUES for optimize in OPTIMIZE]


def model_row(pruned: models.LoadedModel, values: str, optimize: str) -> dict[str, Any]:
    """Bytes of one compiled model, each packing counted once."""
    print(f"compiling {pruned.name}, {values}, {optimize}", file=sys.stderr)
    fast = zeroskip.compile(pruned, values=values, optimize=optimize, progress=silent)
    layers = [layer for layer in fast.plan if layer.sparsity > 0.1]
    return {
        "model": pruned.name,
        "values": values,
        "optimize": optimize,
        "layers": len(layers),
        "packed_twice": sum(len(layer.kernels) > 1 for layer in layers),
        "kernels": sorted({kernel for layer in layers for kernel in layer.kernels}),
        "ratio": sum(layer.nbytes for layer in layers) / sum(4 * m * k for m, k in (layer.shape for layer in layers)),
        "all_weights": fast.nbytes / (4 * parameters(pruned)),
    }


def text_of(found: dict[str, Any]) -> str:
    """The rows for people."""
    lines = [f"packed bytes over dense float32, {found['sparsity']:.0%} of the weights zero, {found['machine']}", ""]
    lines.append(f"{'kernel':28s} {'pattern':14s} " + " ".join(f"{model:>8s}" for model in LAYERS))
    for row in found["kernels"]:
        lines.append(f"{row['kernel']:28s} {row['pattern']:14s} " + " ".join(f"{row[model]:8.3f}" for model in LAYERS))
    if found["models"]:
        lines += ["", "compiled              values    optimize   layers  packed twice  pruned layers  all weights"]
    for row in found["models"]:
        counts = f"{row['layers']:6d}  {row['packed_twice']:12d}  {row['ratio']:13.3f}  {row['all_weights']:11.3f}"
        lines.append(
            f"{row['model']:21s} {row['values']:9s} {row['optimize']:9s} {counts}  {', '.join(row['kernels'])}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
