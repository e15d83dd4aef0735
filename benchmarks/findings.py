"""Findings of the survey that need no benchmark rows: counted, or measured here in a few seconds.

    python benchmarks/findings.py [--json]

Prints for each the survey's claim and what is found here; docs/findings.md has the verdicts. Data sets that are not
here are left out. Needs torch.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import parser

from zeroskip import ZeroskipError, datasets
from zeroskip.datasets.planetoid import planetoid

NORMAL = np.random.default_rng(0).standard_normal(1_000_000)


def main() -> None:
    """Print all of them."""
    options = parser(__doc__)
    options.add_argument("--json", action="store_true")
    found = [check() for check in (stem, winners, adjacency, words, quantised, inputs)]
    if options.parse_args().json:
        print(json.dumps(found, indent=2))
        return
    for one in found:
        print(f"{one['name']}: {one['claim']}\n    here: {one['here']}")


def stem() -> dict[str, Any]:
    """H15: Inception-V3's stem, 149 x 149 x 32 and the like against 3 x 3 x 32 x 32 weights."""
    activations, weights = 1_401_920, 3 * 3 * 32 * 32
    here = f"{activations / weights:.1f} times; {activations * 4 / 2**20:.2f} MiB and {weights * 4 / 2**10:.0f} KiB"
    return finding("H15", "1,401,920 activations are about 152 times 9,216 weights; 5.6 MB and 36 KB", here)


def winners() -> dict[str, Any]:
    """H17: ReLU, and keeping the largest tenth."""
    x = torch.randn(512, 4096, generator=torch.Generator().manual_seed(0))

    def largest() -> torch.Tensor:
        least = torch.topk(x, x.shape[1] // 10, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
        return torch.where(x >= least, x, 0.0)

    ratio = median_s(largest) / median_s(lambda: torch.relu(x))
    return finding("H17", "k-winners costs about as much as a ReLU pass", f"{ratio:.0f} times as much, by torch.topk")


def adjacency() -> dict[str, Any]:
    """H20: density and edges a node of the graphs that are here, those of at least a thousand nodes."""
    found = []
    for name in ("planetoid", "snap", "suitesparse", "tudataset", "ogb"):
        dataset = datasets.registry.get(name)
        for entry in dataset.entries() if dataset.why_not() is None else ():
            a = entry.matrix()
            if a.shape[0] >= 1000:
                found.append((entry.name, a.nnz / a.shape[0] / a.shape[1], a.nnz / a.shape[0]))
    sparse, few = sum(density < 0.01 for _, density, _ in found), sum(edges <= 10 for _, _, edges in found)
    here = f"{sparse} of {len(found)} below 1 %, {few} with at most 10 edges a node"
    here += f" ({', '.join(f'{name} {density:.2%} and {edges:.0f}' for name, density, edges in found)})"
    return finding("H20", "density below 1 % in most graphs, rarely more than 10 edges a node", here)


def words() -> dict[str, Any]:
    """H21: zeros among the inputs of a graph network."""
    try:
        x = planetoid("cora").features
        here = f"Cora: {x.sparsity:.1%}"
    except ZeroskipError as error:
        here = f"not here ({error})"
    return finding("H21", "inputs of graph networks are 85 to 99 % zeros", here)


def quantised() -> dict[str, Any]:
    """H23: zeros of normal values in b bits, symmetric, with the scale of least squared error."""
    shares = []
    for bits in (8, 4, 2):
        most = 2 ** (bits - 1) - 1
        scale = min(np.linspace(0.5, 6.0, 56) / most, key=lambda s: squared_error(s, most))
        shares.append(f"{bits} bits {np.mean(np.abs(NORMAL) < scale / 2):.0%}")
    return finding(
        "H23", "8, 4 and 2 bits make 13, 35 and 59 % of values zero", f"of normal values: {', '.join(shares)}"
    )


def squared_error(scale: float, most: int) -> float:
    """Of rounding to codes."""
    return float(np.mean((np.clip(np.round(NORMAL / scale), -most, most) * scale - NORMAL) ** 2))


def inputs() -> dict[str, Any]:
    """H27: inputs of a fully connected layer that sees a picture."""
    return finding("H27", "a picture of 224 x 224 x 3 is more than 150,000 inputs", f"{224 * 224 * 3:,}")


def median_s(call: Callable[[], Any]) -> float:
    """Median seconds of 20 calls after 3."""
    times = []
    for turn in range(23):
        start = time.perf_counter()
        call()
        if turn >= 3:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def finding(name: str, claim: str, here: str) -> dict[str, Any]:
    """One line."""
    return {"name": name, "claim": claim, "here": here}


if __name__ == "__main__":
    main()
