"""The runner of `zeroskip bench spmm`: random matrices, every kernel checked before it is timed, one row each."""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from .._errors import InvalidArgument
from ..formats import SparseMatrix
from ..kernels import Kernel, Prepared
from . import machine, schema
from .operands import Problem
from .timer import SETTLE_MAX_S, Candidate, Samples, interleave

Row = dict[str, Any]
Progress = Callable[[str, int, int], None]
Float32 = npt.NDArray[np.float32]

MAX_COPIES_BYTES = 512 * 2**20
MAX_COPIES = 512
# A copy of these is a session with threads of its own; a hundred of them disturb each other (3 ms instead of 60 us).
WALKED = ("onnxruntime",)


@dataclass(frozen=True)
class SpmmSettings:
    """What `zeroskip bench spmm` was asked for; docs/benchmark.md explains each.

    Args:
        kernels: Names, globs, `auto` (ours of the best instruction set here) or `all`; dense rivals come with `peers`.
        peers: Origins of rivals (`torch`, `numpy`, ...), `auto` (the dense products), `all`, or `none`.
        budget_s: Seconds of timing for each (shape, sparsity, n).
        threads: None for ZEROSKIP_NUM_THREADS, or all cores.
    """

    shapes: Sequence[tuple[int, int]] = ((4096, 4096),)
    sparsities: Sequence[float] = (0.5, 0.8, 0.9, 0.95, 0.98)
    ns: Sequence[int] = (1, 32, 128)
    dtype: str = "float32"
    pattern: str = "unstructured"
    kernels: Sequence[str] = ("auto",)
    peers: Sequence[str] = ("auto",)
    threads: int | None = None
    seed: int = 0
    budget_s: float = 3.0
    rounds: int = 7


@dataclass
class _Entry:
    """One kernel in one layout on the way to its row."""

    kernel: Kernel
    role: str
    transposed: bool
    row: Row
    prepared: list[Prepared] = field(default_factory=list)

    @property
    def label(self) -> str:
        return label_of(self.kernel.name, self.row["layout"])


@dataclass(frozen=True)
class _Group:
    """One matrix at one n, and the kernels to compare there, each with its role."""

    settings: SpmmSettings
    chosen: Sequence[tuple[Kernel, str]]
    problem: Problem
    a: SparseMatrix
    n: int
    threads: int


def label_of(kernel: str, layout: str) -> str:
    """A kernel with its layout where it is not the usual one."""
    return kernel if layout == "columns" else f"{kernel} (rows)"


def bench_spmm(settings: SpmmSettings, *, progress: Progress | None = None) -> Iterator[Row]:
    """Measure, giving a row for each (shape, sparsity, n, kernel, layout) as soon as its group is done.

    Raises:
        InvalidArgument: If a kernel or peer is not known, or the pattern does not fit a shape; raised before measuring.
    """
    chosen = select(settings)
    problems = [
        Problem(shape, sparsity, settings.pattern, settings.dtype, settings.seed)
        for shape in settings.shapes
        for sparsity in settings.sparsities
    ]
    for problem in problems:
        problem.check()
    threads = machine.use_threads(settings.threads)
    total, done = len(problems) * len(settings.ns), 0
    for problem in problems:
        a = problem.matrix()
        for n in settings.ns:
            yield from _measure(_Group(settings, chosen, problem, a, n, threads))
            done += 1
            if progress is not None:
                progress("bench spmm", done, total)


def select(settings: SpmmSettings) -> list[tuple[Kernel, str]]:
    """The kernels asked for, each with its role; those that cannot run here are among them where they were named."""
    known = [kernel for kernel in kernels.registry if kernel.op == "spmm"]
    origins = {kernel.origin for kernel in known}
    rivals = set(settings.peers)
    wrong = rivals - origins - {"auto", "all", "none"}
    if wrong:
        names = ", ".join(sorted(origins - {"native"}))
        raise InvalidArgument(f"bench: peer {sorted(wrong)[0]!r} is not known; choose auto, all, none or of: {names}.")
    best = machine.machine()["isa"]
    found: dict[str, tuple[Kernel, str]] = {}
    for wanted in settings.kernels:
        hits = [kernel for kernel in known if _wanted(kernel, wanted, settings.dtype, best)]
        if not hits and wanted not in ("auto", "all"):
            names = ", ".join(sorted(kernel.name for kernel in known))
            raise InvalidArgument(f"bench: kernel {wanted!r} is not known; choose auto, all, a glob or of: {names}.")
        found.update({kernel.name: (kernel, _role(kernel)) for kernel in hits})
    for kernel in known:
        named = kernel.origin in rivals or "all" in rivals
        dense = kernel.format == "dense" and "auto" in rivals and kernel.why_not() is None
        if kernel.origin != "native" and (named or dense):
            found[kernel.name] = (kernel, _role(kernel))
    if not found:
        raise InvalidArgument(f"bench: no kernel for {settings.dtype} here; see `zeroskip list kernels`.")
    return list(found.values())


def _wanted(kernel: Kernel, wanted: str, dtype: str, best: str) -> bool:
    if wanted == "all":
        return kernel.origin == "native" and kernel.dtype == dtype
    if wanted == "auto":
        return kernel.origin == "native" and kernel.dtype == dtype and kernel.isa == best
    return fnmatchcase(kernel.name, wanted)


def _role(kernel: Kernel) -> str:
    if kernel.origin == "native":
        return "candidate"
    return "dense" if kernel.format == "dense" else "peer"


def _measure(group: _Group) -> list[Row]:
    """All kernels on one matrix at one n: check, then time those that passed, then compare."""
    a, n = group.a, group.n
    columns = group.problem.vectors(n)
    reference, bound = group.problem.reference(a, columns)
    operands = {False: columns, True: np.ascontiguousarray(columns.T)}
    outputs = {False: np.empty((a.shape[0], n), np.float32), True: np.empty((n, a.shape[0]), np.float32)}
    entries = list(_entries(group))
    for entry in entries:
        if entry.row["status"] == "ok":
            _check(entry, a, operands, outputs, reference, bound)
    ready = [entry for entry in entries if entry.row["status"] == "ok"]
    cold = n == 1
    for entry in ready:
        _copies(entry, a, cold)
    candidates = [_candidate(entry, operands, outputs, cold) for entry in ready]
    timed = interleave(candidates, budget_s=group.settings.budget_s, rounds=group.settings.rounds)
    for entry, samples in zip(ready, timed, strict=True):
        _fill(entry, samples, cold, group.problem.nnz(a), n)
    rows = [entry.row for entry in entries]
    compare(rows)
    for row in rows:
        schema.check_row(row)
    return rows


def _candidate(entry: _Entry, operands: dict[bool, Float32], outputs: dict[bool, Float32], cold: bool) -> Candidate:
    x, out = operands[entry.transposed], outputs[entry.transposed]
    calls = [partial(prepared.run, x, out, transposed=entry.transposed) for prepared in entry.prepared]
    packed = sum(prepared.nbytes for prepared in entry.prepared)
    return Candidate(entry.label, calls, before=_walk if cold and packed < _cold_bytes() else None)


def _entries(group: _Group) -> Iterator[_Entry]:
    """A row for each kernel and layout, `skipped` where it cannot run. Dense rivals are tried in both layouts."""
    a, n, problem = group.a, group.n, group.problem
    for kernel, role in group.chosen:
        reason = kernel.why_not() or kernel.rejects(a, n)
        for transposed in (False, True) if role == "dense" and reason is None else (False,):
            row: Row = dict.fromkeys(schema.FIELDS)
            row.update(
                schema=schema.NAME,
                schema_version=schema.VERSION,
                op="spmm",
                kernel=kernel.name,
                origin=kernel.origin,
                role=role,
                format=kernel.format,
                dtype=kernel.dtype,
                isa=kernel.isa,
                layout="rows" if transposed else "columns",
                m=a.shape[0],
                k=a.shape[1],
                n=n,
                pattern=problem.pattern,
                sparsity=problem.sparsity,
                nnz=problem.nnz(a),
                seed=group.settings.seed,
                status="ok" if reason is None else "skipped",
                reason=reason,
                threads=group.threads,
                settle_max_s=SETTLE_MAX_S,
                machine=machine.machine(),
                versions=machine.versions(),
                commit=machine.commit(),
                when=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            )
            yield _Entry(kernel, role, transposed, row)


def _check(
    entry: _Entry,
    a: SparseMatrix,
    operands: dict[bool, Float32],
    outputs: dict[bool, Float32],
    reference: npt.NDArray[np.float64],
    bound: npt.NDArray[np.float64],
) -> None:
    """Prepare and run once, and compare with float64; a kernel that is wrong or raises becomes a failed row."""
    row, out = entry.row, outputs[entry.transposed]
    out.fill(np.nan)
    try:
        start = time.perf_counter()
        prepared = entry.kernel.prepare(a)
        row["prepare_s"] = time.perf_counter() - start
        prepared.run(operands[entry.transposed], out, transposed=entry.transposed)
    except Exception as error:  # a rival library may raise anything; the row says what
        row.update(
            status="failed", reason=f"{type(error).__name__}: {' '.join(str(error).split())[:200]}", prepare_s=None
        )
        return
    row["nbytes"] = int(prepared.nbytes)
    worst = worst_error(out.T if entry.transposed else out, reference, bound)
    if np.isfinite(worst):
        row["error_over_bound"] = worst
    if not worst <= 1:
        row.update(status="failed", reason=f"wrong result: an error is {worst:.3g} times its bound (or not a number)")
        return
    entry.prepared.append(prepared)


def worst_error(out: Float32, reference: npt.NDArray[np.float64], bound: npt.NDArray[np.float64]) -> float:
    """The largest |out - reference| over the bound of its element; inf if something is not a number."""
    error = np.abs(out.astype(np.float64) - reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / bound)
    worst = float(share.max())
    return worst if np.isfinite(worst) else float("inf")


def _copies(entry: _Entry, a: SparseMatrix, cold: bool) -> None:
    """For cold weights: as many copies as together exceed the last-level cache twice, but not thousands."""
    if not cold or entry.kernel.origin in WALKED:
        return
    nbytes = max(entry.prepared[0].nbytes, 1)
    for _ in range(min(-(-_cold_bytes() // nbytes), MAX_COPIES) - 1):
        entry.prepared.append(entry.kernel.prepare(a))


def _cold_bytes() -> int:
    return min(2 * machine.last_level_cache_bytes(), MAX_COPIES_BYTES)


@cache
def _trash() -> Float32:
    return np.zeros(_cold_bytes() // 4, dtype=np.float32)


def _walk() -> None:
    """Push everything else out of the caches."""
    np.add(_trash(), 1, out=_trash())


def _fill(entry: _Entry, samples: Samples, cold: bool, nnz: int, n: int) -> None:
    median = samples.median_s
    entry.row.update(
        time_s=median,
        time_q10_s=samples.quantile(0.1),
        time_q90_s=samples.quantile(0.9),
        time_min_s=min(samples.times_s),
        samples=len(samples.times_s),
        rounds=samples.rounds,
        cold=cold,
        copies=len(entry.prepared),
        gflops=2 * nnz * n / median / 1e9,
    )
    entry.prepared.clear()


def compare(rows: Sequence[Row]) -> None:
    """Fill in the ratios to the best dense product of this group; no ratio where no dense rival ran."""
    timed = [row for row in rows if row["status"] == "ok"]
    dense = [row for row in timed if row["role"] == "dense"]
    of_torch = [row["time_s"] for row in dense if row["origin"] == "torch"]
    best = min(dense, key=lambda row: float(row["time_s"]), default=None)
    for row in timed:
        if best is not None:
            row["dense_kernel"] = label_of(best["kernel"], best["layout"])
            row["speedup"] = best["time_s"] / row["time_s"]
        if of_torch:
            row["torch_speedup"] = min(of_torch) / row["time_s"]
