"""Choosing a kernel by measuring: which candidates there are, how they are timed, and why one of them wins."""

from __future__ import annotations

import math
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import BSR, COO, NM, SparseMatrix, value_bytes
from ..kernels import Kernel, Prepared, newest, registry
from ..kernels._base import Float32

# A sample shorter than this is mostly clock and call; shorter kernels run several times in one sample.
MIN_SAMPLE_S = 100e-6
# Before the kernels of another library its predecessor's threads go to sleep, and get so long for it: some spin for a
# tenth of a second, and with 10 ms torch's dense product was seen at 12 ms where it takes 0.9 (512x512, N = 128).
SETTLE_MAX_S = 0.3
_STEP_S = 0.002
# What is this many times slower than the best, by the cost model or in warm-up, is not timed further.
HOPELESS = 4.0
# Two sparse kernels closer than this are equally fast; the smaller one is taken.
TIE = 1.03
_MIN_ROUNDS, _MAX_ROUNDS = 3, 101
# The last part of a kernel's name where it is made for few columns of x.
_TILE = re.compile(r"_n(\d+)$")


@dataclass(frozen=True)
class Measured:
    """What was found out about one candidate. `skipped` says why it was not timed, or not to the end."""

    kernel: str
    time_s: float | None
    prepare_s: float | None
    nbytes: int | None
    skipped: str | None = None


def candidates(a: SparseMatrix, n: int, x_dtype: str = "float32") -> list[Kernel]:
    """The kernels that "auto" weighs for `a`: native ones of the best instruction set, and dense ones.

    Values are never narrowed: sparse kernels of the matrix's own dtype, and dense ones of either. Sparse float32 ones
    count only where there is none for `n` columns. One column of a quantised matrix is another exception: float32 ones
    take it dequantised, and reading numbers may cost less there than decoding codes. Nor is x narrowed: integer
    kernels, which round it to 8 bits, count only where `x_dtype` is int8. torch counts only where the program has
    imported it already.
    """
    usable = [kernel for kernel in registry if kernel.why_not() is None and kernel.rejects(a, n) is None]
    usable = [kernel for kernel in usable if x_dtype == "int8" or not rounds_x(kernel)]
    native = newest([kernel for kernel in usable if kernel.origin == "native"])
    dense = [kernel for kernel in native if kernel.format == "dense" and kernel.dtype in (a.dtype, "float32")]
    sparse = [kernel for kernel in native if kernel.format != "dense"]
    if not sparse:
        sparse = [kernel for kernel in usable if kernel.origin == "scipy"]
    own = [kernel for kernel in sparse if kernel.dtype == a.dtype]
    libraries = {"numpy"} | ({"torch"} & set(sys.modules))
    dense += [kernel for kernel in usable if kernel.origin in libraries and kernel.format == "dense"]
    plain = [kernel for kernel in sparse if kernel.dtype == "float32"]
    fits = any(wrong_size(kernel.name, n) is None for kernel in own)
    return own + ([] if fits and (a.scales is None or n > 1) else plain) + dense


def rounds_x(kernel: Kernel) -> bool:
    """Whether a kernel rounds x to int8 and adds products of codes in integers."""
    return bool(getattr(kernel, "integer", False))


def estimate(kernel: Kernel, a: SparseMatrix, n: int) -> float:
    """A rough cost in dense multiplications: arithmetic at the format's efficiency, or bytes where they cost more.

    Only good enough to leave out what cannot win. Efficiencies are those of blocked AVX2 kernels on Zen 3 against its
    dense product, and a byte costs 3 multiplications: 16 GB/s beside 50 billion multiplications a second.
    """
    elems = a.shape[0] * a.shape[1]
    stored = a.nnz if kernel.format != "dense" else elems
    efficiency = {"dense": 1.0, "bsr": 0.8, "nm": 0.7}.get(kernel.format, 0.5)
    pattern_bytes = {
        "csr": 2.0 * stored,
        "bitmask": elems / 8,
        "nm": 1.0 * stored,
        "bsr": 4.0 * stored / (a.block[0] * a.block[1]) if isinstance(a, BSR) else 0.0,
    }.get(kernel.format, 0.0)
    return max(stored * n / efficiency, 3.0 * (value_bytes(stored, kernel.dtype) + pattern_bytes))


def hopeless(kernels: Sequence[Kernel], a: SparseMatrix, n: int) -> dict[str, str]:
    """Names of sparse candidates that the cost model rules out, with the reason. Dense ones always stay."""
    costs = {kernel.name: estimate(kernel, a, n) for kernel in kernels}
    best = min(costs.values(), default=0.0)
    reasons = {}
    for kernel in kernels:
        if size := wrong_size(kernel.name, n):
            reasons[kernel.name] = size
        elif kernel.format != "dense" and costs[kernel.name] > HOPELESS * best:
            reasons[kernel.name] = f"estimated at {costs[kernel.name] / best:.1f}x the cost of the best candidate"
    return reasons


def wrong_size(name: str, n: int) -> str | None:
    """Why a kernel is not meant for `n` columns of x, by its name (`_n1`, `_n16`); None where it is."""
    tile = _TILE.search(name)
    if tile is None or (n == 1 if tile[1] == "1" else 1 < n <= int(tile[1])):
        return None
    return "made for 1 column" if tile[1] == "1" else f"made for 2 to {tile[1]} columns"


def statistics_of(a: SparseMatrix) -> dict[str, Any]:
    """What the time of a kernel depends on, JSON-able: matrices with equal statistics share a measurement.

    The number of entries is in steps of 2 %; the spread of the rows' counts is their standard deviation over their
    mean, in steps of a quarter.
    """
    return {
        "format": a.name,
        "params": a.params,
        "dtype": a.dtype,
        "scales": None if a.scales is None else [a.scales.group, a.scales.symmetric],
        "shape": list(a.shape),
        "nnz": round(50 * math.log(a.nnz)) if a.nnz else None,
        "spread": round(4 * _spread(a)),
    }


def _spread(a: SparseMatrix) -> float:
    if isinstance(a, NM) or not a.nnz:
        return 0.0
    indptr = getattr(a, "indptr", None) if a.name in ("csr", "bitmask", "bsr") else None  # others' are not of rows
    if indptr is None:
        rows = a.row if isinstance(a, COO) else a.entries().rows
        counts = np.bincount(rows, minlength=a.shape[0])
    else:
        counts = np.diff(indptr)
    return float(counts.std() / counts.mean())


def measured_from(value: object, names: Sequence[str]) -> tuple[Measured, ...] | None:
    """What `measured_as_json` wrote about these candidates; None where it is damaged or about others."""
    if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == 5 for row in value):
        return None
    found = []
    for kernel, time_s, prepare_s, nbytes, skipped in value:
        numbers = [item for item in (time_s, prepare_s, nbytes) if item is not None]
        if any(isinstance(item, bool) or not isinstance(item, int | float) for item in numbers):
            return None
        if not all(0 <= item < math.inf for item in numbers) or not isinstance(skipped, str | None):
            return None
        found.append(Measured(kernel, time_s, prepare_s, nbytes, skipped))
    timed = any(item.time_s for item in found)
    return tuple(found) if timed and sorted(names) == sorted(str(item.kernel) for item in found) else None


def measured_as_json(measured: Sequence[Measured]) -> list[list[Any]]:
    """Candidates as rows of a JSON document."""
    return [[item.kernel, item.time_s, item.prepare_s, item.nbytes, item.skipped] for item in measured]


def measure(
    prepared: Sequence[Prepared],
    n: int,
    *,
    transposed: bool = False,
    bias: Float32 | None = None,
    activation: str | None = None,
    budget_s: float = 0.2,
    min_sample_s: float = MIN_SAMPLE_S,
    settle_max_s: float = SETTLE_MAX_S,
    flush_bytes: int = 0,
    keep: Sequence[str] = (),
) -> list[float]:
    """Median seconds of one run of each candidate, in the order given.

    Candidates take turns, so that a change of clock or a neighbour's load meets all of them. Those hopelessly slow in
    their first timed run keep that one figure and drop out, except the names in `keep`.

    Threads of one library that spin while they wait for work slow the next one down (libgomp's do for milliseconds,
    OpenBLAS's for about 20, Intel's for 200). So candidates of one origin take their turns together; before those of
    another origin there is a pause, and each has a run that is not timed, which wakes its own threads.

    Args:
        prepared: Candidates, all of the same matrix.
        n: Columns of x.
        transposed: Whether vectors lie in rows, as in a linear layer.
        bias: As in `Prepared.run`.
        activation: As in `Prepared.run`.
        budget_s: Time for all of them together; each is timed at least three times whatever it costs.
        min_sample_s: Shorter runs are repeated within one sample.
        settle_max_s: How long the pause between origins may be; none where all candidates have the same.
        flush_bytes: Before each sample, walk over a buffer of this size so that weights come from memory, as they do in
            a model larger than the caches; a sample is then a single run.
        keep: Kernel names never dropped.
    """
    if not prepared:
        return []
    bench = _Bench(prepared, n, transposed, bias, activation, settle_max_s, flush_bytes)
    everyone = range(len(prepared))
    for candidate in everyone:
        bench.run(candidate)  # first touch of pages, lazy compilation, thread pools
    first = bench.turn(everyone, [1] * len(prepared))
    fastest = min(first.values())
    alive = [i for i in everyone if first[i] <= HOPELESS * fastest or prepared[i].kernel in keep]
    repeats = [1 if flush_bytes else max(1, round(min_sample_s / max(first[i], 1e-7))) for i in everyone]
    times = {i: [] if i in alive else [first[i]] for i in everyone}
    end = time.perf_counter() + budget_s
    for done in range(_MAX_ROUNDS):
        if done >= _MIN_ROUNDS and time.perf_counter() > end:
            break
        for i, spent in bench.turn(alive, repeats).items():
            times[i].append(spent)
    return [statistics.median(times[i]) for i in everyone]


def settle(most_s: float = SETTLE_MAX_S) -> float:
    """Sleep until this process uses no processor time any more, at most `most_s`.

    Returns:
        How long it took.
    """
    start = time.perf_counter()
    while (now := time.perf_counter()) - start < most_s:
        used = time.process_time()
        time.sleep(_STEP_S)
        if time.process_time() - used < 0.1 * (time.perf_counter() - now):
            break
    return time.perf_counter() - start


class _Bench:
    """Candidates with the arrays they run on."""

    def __init__(
        self,
        prepared: Sequence[Prepared],
        n: int,
        transposed: bool,
        bias: Float32 | None,
        activation: str | None,
        settle_max_s: float,
        flush_bytes: int,
    ) -> None:
        rows, columns = prepared[0].shape
        rng = np.random.default_rng(0)
        self._prepared = prepared
        self._origins = [_origin(item.kernel) for item in prepared]
        self._x = rng.standard_normal((n, columns) if transposed else (columns, n), dtype=np.float32)
        self._out = np.empty((n, rows) if transposed else (rows, n), dtype=np.float32)
        self._bias, self._activation, self._transposed = bias, activation, transposed
        self._settle_max_s = settle_max_s
        self._trash = np.zeros(flush_bytes // 4, dtype=np.float32)

    def run(self, candidate: int) -> None:
        self._prepared[candidate].run(
            self._x, self._out, bias=self._bias, activation=self._activation, transposed=self._transposed
        )

    def turn(self, candidates: Sequence[int], repeats: Sequence[int]) -> dict[int, float]:
        """One sample of each candidate, in seconds a run."""
        spent = {}
        origins = list(dict.fromkeys(self._origins[i] for i in candidates))
        for origin in origins:
            own = [i for i in candidates if self._origins[i] == origin]
            if len(origins) > 1:
                settle(self._settle_max_s)
                self.run(own[0])
            for i in own:
                spent[i] = self._sample(i, repeats[i])
        return spent

    def _sample(self, candidate: int, repeats: int) -> float:
        if self._trash.size:
            np.add(self._trash, 1.0, out=self._trash)
        start = time.perf_counter()
        for _ in range(repeats):
            self.run(candidate)
        return (time.perf_counter() - start) / repeats


def _origin(name: str) -> str:
    """Whose threads a kernel uses."""
    return registry.get(name).origin if name in registry else ""


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
