"""Sums and attention over the edges of a power-law graph: our kernels over torch, medians of ratios of one run.

    python benchmarks/graph_speed.py [--nodes 169000] [--edges 1250000] [--rounds 7] [--threads 2] [--json]

The graph is made from a seed; edges that it draws twice are one. Sum: torch's product of a CSR matrix, of 32, 128
and 256 features; both make a new result in each call, or ("result kept") both write into one that is there. Attention:
4 heads of 32 features, against gather, softmax by scatter, and index_add, all in torch, without the time that making
its index takes. Results are checked against float64 (some of the rows) before anything is timed. Each round times both,
one after the other; what is printed is the median of the rounds' ratios, with the fastest and the slowest. Both read
tensors that torch made, whose memory begins at a cache line, where NumPy's begins anywhere.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from _common import parser

from zeroskip import ops
from zeroskip.bench.timer import settle
from zeroskip.formats import CSR
from zeroskip.kernels import operation_kernel
from zeroskip.kernels.cpu import set_num_threads
from zeroskip.kernels.peers.torch_graph import csr_of, edges_of, gat_of_edges
from zeroskip.ops import graph_reference as reference
from zeroskip.testing.graph_bounds import assert_within, gat_bound, gspmm_bound
from zeroskip.testing.graphs import power_law

FEATURES = (32, 128, 256)
HEADS, WIDTH, SLOPE = 4, 32, 0.2
CHECKED_ROWS = 2000


def seconds(call: Callable[[], Any]) -> float:
    settle()
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def compare(name: str, ours: Callable[[], Any], rival: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Times of both, alternating; each begins when the threads of the other sleep."""
    ours(), rival()
    pairs = [(seconds(ours), seconds(rival)) for _ in range(rounds)]
    ratios = [second / first for first, second in pairs]
    return {
        "what": name,
        "ours_s": statistics.median(first for first, _ in pairs),
        "rival_s": statistics.median(second for _, second in pairs),
        "speedup": statistics.median(ratios),
        "speedup_least": min(ratios),
        "speedup_most": max(ratios),
    }


def first_rows(graph: CSR) -> CSR:
    """The rows that are checked."""
    end = int(graph.indptr[CHECKED_ROWS])
    return CSR((CHECKED_ROWS, graph.shape[1]), graph.indptr[: CHECKED_ROWS + 1], graph.indices[:end], graph.data[:end])


def sums(graph: CSR, features: int, rounds: int) -> list[dict[str, Any]]:
    x = np.random.default_rng(features).standard_normal((graph.shape[1], features), dtype=np.float32)
    tensor, matrix = torch.from_numpy(x).clone(), csr_of(graph, None)
    part, cube = first_rows(graph), x[:, None]
    for found in (ops.gspmm(graph, x), (matrix @ tensor).numpy()):
        some = found[:CHECKED_ROWS, None]
        assert_within(some, reference.gspmm(part, cube), gspmm_bound(part, cube, None, "sum"))
    name = f"sum, {features} features"
    new = compare(name, lambda: ops.gspmm(graph, tensor), lambda: matrix @ tensor, rounds)
    mine, theirs = (torch.empty(graph.shape[0], features) for _ in range(2))
    kept = compare(
        f"{name}, result kept",
        lambda: ops.gspmm(graph, tensor, out=mine),
        lambda: torch.mm(matrix, tensor, out=theirs),
        rounds,
    )
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-4)
    return [new, kept]


def attention(graph: CSR, rounds: int) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((graph.shape[1], HEADS, WIDTH), dtype=np.float32)
    left, right = (rng.standard_normal((graph.shape[0], HEADS), dtype=np.float32) for _ in range(2))
    targets, sources = edges_of(graph)
    tensors = [torch.from_numpy(array).clone() for array in (x, left, right)]

    def rival() -> torch.Tensor:
        out = torch.empty(x.shape)
        gat_of_edges(targets, sources, *tensors, SLOPE, out)
        return out

    part = first_rows(graph)
    allowed = gat_bound(part, x, left[:CHECKED_ROWS], right, SLOPE)
    expected = reference.gat(part, x, left[:CHECKED_ROWS], right, SLOPE)
    for found in (ops.gat(graph, x, left, right), rival().numpy()):
        assert_within(found[:CHECKED_ROWS], expected, allowed)
    name = f"attention, {HEADS} heads of {WIDTH} features"
    return compare(name, lambda: ops.gat(graph, *tensors, negative_slope=SLOPE), rival, rounds)


def main() -> None:
    found = parser(__doc__)
    found.add_argument("--nodes", type=int, default=169_000)
    found.add_argument("--edges", type=int, default=1_250_000)
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--rounds", type=int, default=7)
    found.add_argument("--threads", type=int, default=2)
    found.add_argument("--json", action="store_true")
    options = found.parse_args()
    torch.set_num_threads(options.threads)
    set_num_threads(options.threads)
    graph = power_law(options.nodes, options.edges, options.seed)
    kernel = operation_kernel("graph_speed", "gspmm", "csr", "float32")
    print(
        f"{graph.shape[0]} nodes, {graph.nnz} edges, longest row {int(np.diff(graph.indptr).max())}, "
        f"{kernel.isa}, {options.threads} threads, seed {options.seed}",
        file=sys.stderr,
    )
    with torch.inference_mode():
        rows = [row for features in FEATURES for row in sums(graph, features, options.rounds)]
        rows.append(attention(graph, options.rounds))
    if options.json:
        print(json.dumps({"nodes": graph.shape[0], "edges": graph.nnz, "isa": kernel.isa, "rows": rows}))
        return
    for row in rows:
        print(
            f"{row['what']:36} {1e3 * row['ours_s']:8.1f} ms, torch {1e3 * row['rival_s']:8.1f} ms: "
            f"{row['speedup']:5.2f} times ({row['speedup_least']:.2f} to {row['speedup_most']:.2f})"
        )


if __name__ == "__main__":
    main()
