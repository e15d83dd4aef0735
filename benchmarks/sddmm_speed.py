"""SDDMM and masked softmax against their rivals, on masks of attention and on a power-law graph.

    python benchmarks/sddmm_speed.py [--only masks graph softmax] [--n 1024 4096] [--depth 64 128] [--json]

masks: BigBird-like (a window, global rows and columns, random entries, about a third each), n x n, S = Q K^T at the
entries. The rival is torch's dense product, multiplied in place by a mask of zeros and ones.
graph: rows and columns drawn with falling probabilities and shuffled, A B^T at the entries, against
torch.sparse.sampled_addmm with a tensor that was made beforehand, which is timed on masks too.
softmax: over the entries of the masks, against torch.softmax of the dense scores.

Q and K are tensors that torch made, whose memory begins at a cache line, where NumPy's begins anywhere.
All candidates of a row take turns in one run; a ratio is the median of those of the rounds, each of median times. Above
1 is faster than the rival. Results are held to the error bound before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from _common import parser

from zeroskip import ops
from zeroskip.bench.timer import settle
from zeroskip.formats import CSR, SparseMatrix
from zeroskip.kernels.cpu import get_num_threads, set_num_threads
from zeroskip.testing import assert_close, random_dense
from zeroskip.testing.sddmm_bounds import sddmm_bound, softmax_bound

Calls = dict[str, Callable[[], Any]]


def bigbird(n: int, sparsity: float, seed: int = 0) -> np.ndarray:
    """A mask (n, n) with a third of its entries in a window, a third global, and as many random ones as are missing."""
    entries = round((1.0 - sparsity) * n * n)
    i = np.arange(n)
    mask = np.abs(i[:, None] - i) <= max(1, entries // (6 * n))
    most = max(1, entries // (6 * n))
    mask[:most] = mask[:, :most] = True
    free = np.flatnonzero(~mask.ravel())
    missing = max(0, entries - int(mask.sum()))
    mask.ravel()[np.random.default_rng(seed).choice(free, missing, replace=False)] = True
    return mask


def power_law(rows: int, entries: int, seed: int = 0) -> CSR:
    """About so many entries; degrees fall as rank^-0.6, and ranks have nothing to do with numbers."""
    rng = np.random.default_rng(seed)
    chance = np.arange(1, rows + 1) ** -0.6
    ends = [rng.permutation(rows)[rng.choice(rows, entries, p=chance / chance.sum())] for _ in range(2)]
    keys = np.unique(ends[0].astype(np.int64) * rows + ends[1])
    indptr = np.zeros(rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(keys // rows, minlength=rows), out=indptr[1:])
    return CSR((rows, rows), indptr, (keys % rows).astype(np.int32), np.ones(keys.size, dtype=np.float32))


def of_mask(mask: np.ndarray) -> CSR:
    return CSR.from_dense(mask.astype(np.float32))


def median_ratios(calls: Calls, rounds: int, slice_s: float) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Median seconds of each call, and of each pair the median over rounds of (its time / ours)."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            settle()
            calls[name]()
            times: list[float] = []
            end = time.perf_counter() + slice_s
            while len(times) < 3 or time.perf_counter() < end:
                start = time.perf_counter()
                calls[name]()
                times.append(time.perf_counter() - start)
            found[name].append(statistics.median(times))
    ratios = {
        rival: {
            name: statistics.median(b / a for a, b in zip(found[name], found[rival], strict=True))
            for name in calls
            if name != rival
        }
        for rival in calls
    }
    return {name: statistics.median(times) for name, times in found.items()}, ratios


def sddmm_calls(patterns: dict[str, SparseMatrix], depth: int, dense: np.ndarray | None) -> Calls:
    """Ours in each format, sampled_addmm, and the dense product where there is a mask for it; ours are checked."""
    import torch

    from zeroskip.kernels.peers.torch_sddmm import csr_tensor

    m, n = patterns["csr"].shape
    q, k = (torch.from_numpy(random_dense((size, depth), seed=seed)).clone() for seed, size in enumerate((m, n)))
    calls: Calls = {}
    for name, pattern in patterns.items():
        assert_close(ops.sddmm(pattern, q, k.t()).data.reshape(1, -1), sddmm_bound(pattern, q.numpy(), k.numpy().T))
        calls[name] = lambda pattern=pattern: ops.sddmm(pattern, q, k.t())  # type: ignore[misc]
    if "csr" in patterns:
        halves = q.bfloat16(), k.bfloat16()
        calls["csr bf16"] = lambda: ops.sddmm(patterns["csr"], halves[0], halves[1].t())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = csr_tensor(patterns["csr"])
    calls["sampled"] = lambda: torch.sparse.sampled_addmm(given, q, k.t(), beta=0.0)
    if dense is not None:
        mask = torch.from_numpy(dense.astype(np.float32))
        calls["dense"] = lambda: torch.mm(q, k.t()).mul_(mask)
    return calls


def softmax_calls(patterns: dict[str, SparseMatrix], dense: np.ndarray) -> Calls:
    """Ours in each format, and the softmax of the dense scores with -inf where nothing is stored; ours are checked."""
    import torch

    calls: Calls = {}
    for name, pattern in patterns.items():
        scores = random_dense((pattern.nnz,), seed=3)
        limits = softmax_bound(pattern, scores[None], scale=0.125)
        assert_close(ops.masked_softmax(pattern, scores, scale=0.125)[None], limits)
        calls[name] = lambda pattern=pattern, s=scores: ops.masked_softmax(pattern, s, scale=0.125)  # type: ignore[misc]
    whole = torch.from_numpy(np.where(dense, random_dense(dense.shape, seed=4), np.float32(-np.inf)))
    calls["dense"] = lambda: torch.softmax(whole, dim=1)
    return calls


def cases(options: argparse.Namespace) -> Iterator[tuple[str, Calls, int]]:
    """Name, what to time, and the number of entries of each row of the table."""
    for n in options.n if {"masks", "softmax"} & set(options.only) else ():
        for sparsity in options.sparsity:
            mask = bigbird(n, sparsity)
            csr = of_mask(mask)
            patterns: dict[str, SparseMatrix] = {"csr": csr, "bitmask": csr.convert("bitmask")}
            if "masks" in options.only:
                for depth in options.depth:
                    yield f"masks {n} {sparsity:.2f} d={depth}", sddmm_calls(patterns, depth, mask), csr.nnz
            if "softmax" in options.only:
                yield f"softmax {n} {sparsity:.2f}", softmax_calls(patterns, mask), csr.nnz
    if "graph" in options.only:
        graph = power_law(options.rows, options.entries)
        for depth in options.depth:
            yield f"graph {options.rows} d={depth}", sddmm_calls({"csr": graph}, depth, None), graph.nnz


def main() -> None:
    """Print one line a case: times, and how many times as fast as the rivals ours are."""
    import torch

    options_of = parser(__doc__)
    options_of.add_argument("--only", nargs="+", default=["masks", "graph", "softmax"])
    options_of.add_argument("--n", type=int, nargs="+", default=[1024, 4096])
    options_of.add_argument("--depth", type=int, nargs="+", default=[64, 128])
    options_of.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95, 0.98])
    options_of.add_argument("--rows", type=int, default=100_000, help="of the graph")
    options_of.add_argument("--entries", type=int, default=1_000_000, help="of the graph")
    options_of.add_argument("--rounds", type=int, default=9)
    options_of.add_argument("--slice", type=float, default=0.05, help="seconds a candidate and round")
    options_of.add_argument("--threads", type=int, default=get_num_threads())
    options_of.add_argument("--json", action="store_true")
    options = options_of.parse_args()
    set_num_threads(options.threads)
    torch.set_num_threads(options.threads)
    with torch.inference_mode():
        for name, calls, entries in cases(options):
            times, ratios = median_ratios(calls, options.rounds, options.slice)
            rivals = {rival: found for rival, found in ratios.items() if rival in ("dense", "sampled")}
            if options.json:
                row = {"case": name, "entries": entries, "threads": options.threads, "times_s": times, "ratios": rivals}
                print(json.dumps(row), flush=True)
                continue
            print(f"{name:24s} {entries:9d} entries  ", end="")
            print("  ".join(f"{call} {1e6 * seconds:.0f} us" for call, seconds in times.items()))
            for rival, found in rivals.items():
                print(f"{'':24s} over {rival:8s} " + "  ".join(f"{call} {value:.2f}" for call, value in found.items()))


if __name__ == "__main__":
    main()
