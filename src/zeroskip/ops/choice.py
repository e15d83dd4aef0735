"""Choosing a kernel by measuring: which candidates there are, how they are timed, and why one of them wins."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..formats import BSR, SparseMatrix
from ..kernels import Kernel, Prepared, registry
from ..kernels._base import Float32

# A sample shorter than this is mostly clock and call; shorter kernels run several times in one sample.
MIN_SAMPLE_S = 100e-6
# What is this many times slower than the best, by the cost model or in warm-up, is not timed further.
HOPELESS = 4.0
# Two sparse kernels closer than this are equally fast; the smaller one is taken.
TIE = 1.03
_MIN_ROUNDS, _MAX_ROUNDS = 3, 101


@dataclass(frozen=True)
class Measured:
    """What was found out about one candidate. `skipped` says why it was not timed, or not to the end."""

    kernel: str
    time_s: float | None
    prepare_s: float | None
    nbytes: int | None
    skipped: str | None = None


def candidates(a: SparseMatrix, n: int) -> list[Kernel]:
    """The kernels that "auto" weighs for `a`: native ones of the best instruction set, and dense ones.

    Values are never narrowed: sparse kernels of the matrix's own dtype, float32 ones only where there is none, and
    dense ones of either. torch counts only where the program has imported it already.
    """
    usable = [kernel for kernel in registry if kernel.why_not() is None and kernel.rejects(a, n) is None]
    native = _best_isa([kernel for kernel in usable if kernel.origin == "native"])
    dense = [kernel for kernel in native if kernel.format == "dense" and kernel.dtype in (a.dtype, "float32")]
    sparse = [kernel for kernel in native if kernel.format != "dense"]
    if not sparse:
        sparse = [kernel for kernel in usable if kernel.origin == "scipy"]
    own = [kernel for kernel in sparse if kernel.dtype == a.dtype]
    libraries = {"numpy"} | ({"torch"} & set(sys.modules))
    dense += [kernel for kernel in usable if kernel.origin in libraries and kernel.format == "dense"]
    return (own or [kernel for kernel in sparse if kernel.dtype == "float32"]) + dense


def _best_isa(kernels: Sequence[Kernel]) -> list[Kernel]:
    """For each format and dtype, the kernels of the newest instruction set that has one."""
    order = ("scalar", "neon", "avx2", "avx512")

    def rank(kernel: Kernel) -> int:
        return order.index(kernel.isa) if kernel.isa in order else len(order)

    best: dict[tuple[str, str], int] = {}
    for kernel in kernels:
        key = (kernel.format, kernel.dtype)
        best[key] = max(best.get(key, -1), rank(kernel))
    return [kernel for kernel in kernels if rank(kernel) == best[kernel.format, kernel.dtype]]


def estimate(kernel: Kernel, a: SparseMatrix, n: int) -> float:
    """A rough cost in dense multiplications: arithmetic at the format's efficiency, or bytes where they cost more.

    Only good enough to leave out what cannot win. Efficiencies are those of blocked AVX2 kernels on Zen 3 against its
    dense product, and a byte costs 3 multiplications: 16 GB/s beside 50 billion multiplications a second.
    """
    elems = a.shape[0] * a.shape[1]
    value_bytes = 4 if kernel.dtype == "float32" else 2
    stored = a.nnz if kernel.format != "dense" else elems
    efficiency = {"dense": 1.0, "bsr": 0.8, "nm": 0.7}.get(kernel.format, 0.5)
    pattern_bytes = {
        "csr": 2.0 * stored,
        "bitmask": elems / 8,
        "nm": 1.0 * stored,
        "bsr": 4.0 * stored / (a.block[0] * a.block[1]) if isinstance(a, BSR) else 0.0,
    }.get(kernel.format, 0.0)
    return max(stored * n / efficiency, 3.0 * (stored * value_bytes + pattern_bytes))


def hopeless(kernels: Sequence[Kernel], a: SparseMatrix, n: int) -> dict[str, str]:
    """Names of sparse candidates that the cost model rules out, with the reason. Dense ones always stay."""
    costs = {kernel.name: estimate(kernel, a, n) for kernel in kernels}
    best = min(costs.values(), default=0.0)
    return {
        kernel.name: f"estimated at {costs[kernel.name] / best:.1f}x the cost of the best candidate"
        for kernel in kernels
        if kernel.format != "dense" and costs[kernel.name] > HOPELESS * best
    }


def measure(
    prepared: Sequence[Prepared],
    n: int,
    *,
    transposed: bool = False,
    bias: Float32 | None = None,
    activation: str | None = None,
    budget_s: float = 0.2,
    min_sample_s: float = MIN_SAMPLE_S,
    flush_bytes: int = 0,
    keep: Sequence[str] = (),
) -> list[float]:
    """Median seconds of one run of each candidate, in the order given.

    Candidates take turns, so that a change of clock or a neighbour's load meets all of them. Each has a warm-up run;
    those hopelessly slow then keep that one figure and drop out, except the names in `keep`.

    Args:
        prepared: Candidates, all of the same matrix.
        n: Columns of x.
        transposed: Whether vectors lie in rows, as in a linear layer.
        bias: As in `Prepared.run`.
        activation: As in `Prepared.run`.
        budget_s: Time for all of them together; each is timed at least three times whatever it costs.
        min_sample_s: Shorter runs are repeated within one sample.
        flush_bytes: Before each sample, walk over a buffer of this size so that weights come from memory, as they do in
            a model larger than the caches; a sample is then a single run.
        keep: Kernel names never dropped.
    """
    if not prepared:
        return []
    rows, columns = prepared[0].shape
    x = np.random.default_rng(0).standard_normal((n, columns) if transposed else (columns, n), dtype=np.float32)
    out = np.empty((n, rows) if transposed else (rows, n), dtype=np.float32)
    trash = np.zeros(flush_bytes // 4, dtype=np.float32)

    def sample(candidate: Prepared, inner: int) -> float:
        if flush_bytes:
            np.add(trash, 1.0, out=trash)
        start = time.perf_counter()
        for _ in range(inner):
            candidate.run(x, out, bias=bias, activation=activation, transposed=transposed)
        return (time.perf_counter() - start) / inner

    for candidate in prepared:
        sample(candidate, 1)  # first touch of pages, lazy compilation, thread pools
    times = [[sample(candidate, 1)] for candidate in prepared]
    first = [spans[0] for spans in times]
    alive = [i for i, c in enumerate(prepared) if first[i] <= HOPELESS * min(first) or c.kernel in keep]
    inner = [1 if flush_bytes else max(1, round(min_sample_s / max(span, 1e-7))) for span in first]
    for i in alive:
        times[i].clear()
    end = time.perf_counter() + budget_s
    for done in range(_MAX_ROUNDS):
        if done >= _MIN_ROUNDS and time.perf_counter() > end:
            break
        for i in alive:
            times[i].append(sample(prepared[i], inner[i]))
    return [statistics.median(spans) for spans in times]


def decide(measured: Sequence[Measured], formats: dict[str, str]) -> tuple[str, str]:
    """The winner's name, and the reason in words.

    Args:
        measured: All candidates; those without a time are left out.
        formats: Format of each kernel by name.

    The fastest wins. Where that is a sparse one, another sparse one within 3 % of it that takes fewer bytes wins.
    """
    timed = {m.kernel: (m.time_s, m.nbytes or 0) for m in measured if m.time_s is not None}
    dense = [name for name in timed if formats[name] == "dense"]
    sparse = [name for name in timed if formats[name] != "dense"]
    best_dense = min(dense, key=lambda name: timed[name][0], default=None)
    best_sparse = min(sparse, key=lambda name: timed[name][0], default=None)
    if best_sparse is None:
        if best_dense is None:
            raise ValueError("decide: no candidate was timed")
        return best_dense, f"dense ({_ms(timed[best_dense][0])}): no sparse kernel takes this matrix, or could pay"
    if best_dense is None:
        return best_sparse, f"{formats[best_sparse]} ({_ms(timed[best_sparse][0])}): the only candidates"
    baseline = timed[best_dense][0]
    if timed[best_sparse][0] >= baseline:
        ratio = baseline / timed[best_sparse][0]
        return best_dense, (
            f"dense: the best sparse kernel, {formats[best_sparse]}, is {ratio:.2f}x dense "
            f"({_ms(timed[best_sparse][0])} against {_ms(baseline)})"
        )
    limit = min(TIE * timed[best_sparse][0], baseline)
    winner = min((name for name in sparse if timed[name][0] <= limit), key=lambda name: timed[name][1])
    spent = timed[winner][0]
    return winner, f"{formats[winner]} {baseline / spent:.2f}x dense ({_ms(spent)} against {_ms(baseline)})"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.3g} ms"
