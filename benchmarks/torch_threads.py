"""What torch's own threads cost the kernels beside them: a sparse layer between two torch operations, over and over.

    python benchmarks/torch_threads.py [--json]

A 1536x384 layer at 80 % with our threads, between a LayerNorm and a GELU in torch with 1 or all threads: what a model
of unknown family does. `alone` is the layer by itself, `between` its share of a pass (the whole minus the torch
operations, timed by themselves with the same threads). Each setting in a fresh process, since OpenMP reads its settings
once.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

SETTINGS: list[tuple[str, int, dict[str, str]]] = [
    ("torch 1 thread", 1, {}),
    ("torch all threads", 0, {}),
    ("torch all threads, OMP_WAIT_POLICY=passive", 0, {"OMP_WAIT_POLICY": "passive"}),
    ("torch all threads, GOMP_SPINCOUNT=0", 0, {"GOMP_SPINCOUNT": "0"}),
]


def median(call: Callable[[], Any], rounds: int = 15, inner: int = 20) -> float:
    """Median seconds of a call, over rounds of several."""
    call()
    found = []
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(inner):
            call()
        found.append((time.perf_counter() - start) / inner)
    return statistics.median(found)


def measure(rows: int, threads: int) -> dict[str, float]:
    """Seconds of the layer alone, of the torch operations alone, and of all three in turn."""
    import torch

    from zeroskip.nn import SparseLinear

    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(0)
    linear = torch.nn.Linear(384, 1536)
    with torch.inference_mode():
        linear.weight[torch.rand_like(linear.weight) < 0.8] = 0
        layer = SparseLinear.from_linear(linear, n=rows)
        norm = torch.nn.LayerNorm(384)
        x, y = torch.randn(rows, 384), torch.randn(rows, 1536)
        alone = median(lambda: layer(x))
        others = median(lambda: (norm(x), torch.nn.functional.gelu(y)))
        whole = median(lambda: torch.nn.functional.gelu(layer(norm(x))))
    return {"alone_s": alone, "torch_s": others, "whole_s": whole, "between_s": whole - others}


def main() -> None:
    """Print one line a setting and number of rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(measure(*options.child)))
        return
    for rows in options.rows:
        for name, threads, environment in SETTINGS:
            command = [sys.executable, __file__, "--child", str(rows), str(threads)]
            done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            if options.json:
                print(json.dumps({"rows": rows, "setting": name, **found}), flush=True)
            else:
                times = "  ".join(f"{key[:-2]} {1e6 * value:8.1f} us" for key, value in found.items())
                print(f"{rows:4d} rows  {name:45s} {times}", flush=True)


if __name__ == "__main__":
    main()
