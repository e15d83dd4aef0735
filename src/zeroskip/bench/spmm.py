"""The runner of `zeroskip bench spmm`: every kernel is checked before it is timed, and has one row a matrix and n."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels, ops
from .._arrays import copied_to_lines, empty_lines
from ..formats import SparseMatrix
from ..kernels import Kernel, Prepared
from ..testing import Bound, sums_of
from . import limits, machine, schema
from .operands import DENSE_ELEMS, Expected, Problem, Source, vectors
from .rows import Row, compare, fail, fill_times, label_of, new_row, worst_error
from .selection import CPU, device_of, meant_for, role, select
from .stored import StoredProblem
from .timer import Candidate, Samples, interleave, settle

Progress = Callable[[str, int, int], None]
Float32 = npt.NDArray[np.float32]

MAX_COPIES_BYTES = 512 * 2**20
MAX_COPIES = 2048
# A copy of these is a session with threads of its own; a hundred of them disturb each other (3 ms instead of 60 us).
WALKED = ("onnxruntime",)
_imported: set[str] = set()


@dataclass(frozen=True)
class SpmmSettings:
    """What `zeroskip bench spmm` was asked for; docs/benchmark.md explains each.

    Args:
        matrices: Files, each with its label; instead of shapes, sparsities and a pattern.
        device: Whose kernels `auto` and `all` mean: cpu, or cuda.
        group: Columns that share a scale, for int8 and int4; 0 for the whole row.
        kernels: Names, globs, `auto` (ours of the best instruction set here, and what `ops.plan` takes) or `all`; dense
            rivals come with `peers`.
        peers: Origins of rivals (`torch`, `numpy`, ...), `auto` (the dense products), `all`, or `none`.
        budget_s: Seconds of timing for each (shape, sparsity, n).
        threads: None for ZEROSKIP_NUM_THREADS, or all cores.
    """

    shapes: Sequence[tuple[int, int]] = ((4096, 4096),)
    sparsities: Sequence[float] = (0.5, 0.8, 0.9, 0.95, 0.98)
    ns: Sequence[int] = (1, 32, 128)
    dtype: str = "float32"
    device: str = CPU
    group: int = 0
    pattern: str = "unstructured"
    matrices: Sequence[tuple[Path, str]] = ()
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
class Group:
    """One matrix at one n, and the kernels to compare there, each with its role.

    Args:
        run: What all rows of a run have in common, by field of a row.
    """

    settings: SpmmSettings
    chosen: Sequence[tuple[Kernel, str]]
    source: Source
    a: SparseMatrix
    expected: Expected
    n: int
    threads: int
    run: Mapping[str, Any]

    @property
    def cold(self) -> bool:
        """Whether weights come from memory, as those of a model that makes one token at a time."""
        return self.n == 1


def bench_spmm(settings: SpmmSettings, *, progress: Progress | None = None) -> Iterator[Row]:
    """Measure, giving a row for each (shape, sparsity, n, kernel, layout) as soon as its group is done.

    Raises:
        InvalidArgument: If a kernel or peer is not known, or the pattern does not fit a shape; raised before measuring.
    """
    chosen = select(settings.kernels, settings.peers, settings.dtype, settings.device)
    sources = _sources(settings)
    for source in sources:
        source.check()
    threads = machine.use_threads(settings.threads)
    run = limits.fields(threads)
    total, done = len(sources) * len(settings.ns), 0
    for source in sources:
        a = source.matrix()
        expected = Expected(a)
        for n in settings.ns:
            yield from measure(Group(settings, chosen, source, a, expected, n, threads, run))
            done += 1
            if progress is not None:
                progress("bench spmm", done, total)


def _sources(settings: SpmmSettings) -> list[Source]:
    own = (settings.dtype, settings.seed, settings.group)
    if settings.matrices:
        return [StoredProblem(path, label, *own) for path, label in settings.matrices]
    return [
        Problem(shape, sparsity, settings.pattern, *own)
        for shape in settings.shapes
        for sparsity in settings.sparsities
    ]


def measure(group: Group) -> list[Row]:
    """All kernels on one matrix at one n: check, then time those that passed, then compare."""
    a, n = group.a, group.n
    columns = vectors(group.settings.seed, a.shape[1], n)
    operands = {False: columns, True: copied_to_lines(columns.T)}
    outputs = {False: empty_lines((a.shape[0], n)), True: empty_lines((n, a.shape[0]))}
    bounds: dict[str, Bound] = {}
    entries = list(_entries(group))

    def check(entry: _Entry) -> None:
        rounding = sums_of(entry.kernel)
        if str(rounding) not in bounds:
            bounds[str(rounding)] = group.expected.bound(columns, **rounding)
        _check(entry, a, operands, outputs, bounds[str(rounding)])

    for entry in entries:
        if entry.row["status"] == "ok":
            check(entry)
    for entry in _choose(group, entries):
        check(entry)
        entries.append(entry)
    ready = [entry for entry in entries if entry.row["status"] == "ok"]
    walked = group.cold and any(_too_small(entry) for entry in ready)
    for entry in ready:
        _copies(entry, a, group.cold and not walked)
    candidates = [_candidate(entry, operands, outputs, group.cold) for entry in ready]
    timed = interleave(candidates, budget_s=group.settings.budget_s, rounds=group.settings.rounds)
    for entry, samples in zip(ready, timed, strict=True):
        _fill(entry, samples, group.cold, a.nnz, n)
    rows = [entry.row for entry in entries]
    compare(rows)
    for row in rows:
        schema.check_row(row)
    return rows


def _choose(group: Group, entries: Sequence[_Entry]) -> list[_Entry]:
    """Mark what `ops.plan` takes and what it weighed; gives an entry for its kernel where that takes no part yet.

    It measures for itself, afresh, before anything here is timed. Where weights are codes it may round B to int8, too.
    """
    a, n = group.a, group.n
    if group.settings.device != CPU or "auto" not in group.settings.kernels or a.shape[0] * a.shape[1] > DENSE_ELEMS:
        return []
    settle()
    flush, x_dtype = _cold_bytes() if group.cold else 0, "float32" if a.scales is None else "int8"
    plan = ops.plan("spmm", a, n=n, flush_bytes=flush, cache=False, x_dtype=x_dtype)
    weighed = {found.kernel for found in plan.measured}
    marked = [entry for entry in entries if not entry.transposed and entry.kernel.name in weighed]
    for entry in marked:
        entry.row["choice"] = "taken" if entry.kernel.name == plan.kernel else "considered"
    if any(entry.row["choice"] == "taken" for entry in marked):
        return []
    kernel = kernels.registry.get(plan.kernel)
    added = _entry(group, kernel, role(kernel), False, None)
    added.row["choice"] = "taken"
    return [added]


def _candidate(entry: _Entry, operands: dict[bool, Float32], outputs: dict[bool, Float32], cold: bool) -> Candidate:
    x, out = operands[entry.transposed], outputs[entry.transposed]
    calls = [_call(prepared, x, out, entry.transposed) for prepared in entry.prepared]
    packed = sum(prepared.nbytes for prepared in entry.prepared)
    before = _walk if cold and packed < _cold_bytes() else None
    origin = entry.kernel.origin  # both of ours run on the one native pool
    engine = kernels.OURS[0] if origin in kernels.OURS else origin
    return Candidate(entry.label, calls, before, engine, getattr(entry.prepared[0], "seconds", None))


def _call(prepared: Prepared, x: Float32, out: Float32, transposed: bool) -> Callable[[], object]:
    """What is timed. Where a rival has B and C in its own type, as its models have, converting them does not count."""
    on = getattr(prepared, "on", None)
    call: Callable[[], object] = on(x, transposed) if on else partial(prepared.run, x, out, transposed=transposed)
    return call


def _entries(group: Group) -> Iterator[_Entry]:
    """A row for each kernel and layout, `skipped` where it cannot run. Dense rivals are tried in both layouts.

    Kernels made for another n are left out, and with `auto` those of ours that do not take the matrix, unless one was
    asked for by its name.
    """
    a, n, asked = group.a, group.n, group.settings.kernels
    for kernel, part in group.chosen:
        reason = kernel.why_not() or kernel.rejects(a, n) or _too_large(kernel, a)
        unfit = not meant_for(kernel, n) or (reason and "auto" in asked and part == "candidate")
        if unfit and kernel.name not in asked:
            continue
        for transposed in (False, True) if part in ("dense", "rounded") and reason is None else (False,):
            yield _entry(group, kernel, part, transposed, reason)


def _too_large(kernel: Kernel, a: SparseMatrix) -> str | None:
    elems = a.shape[0] * a.shape[1]
    if kernel.format != "dense" or elems <= DENSE_ELEMS:
        return None
    return f"laid out in full the matrix takes {4 * elems / 1e9:.1f} GB, above what is tried"


def _entry(group: Group, kernel: Kernel, part: str, transposed: bool, reason: str | None) -> _Entry:
    a = group.a
    row = new_row(
        op="spmm",
        kernel=kernel.name,
        origin=kernel.origin,
        role=part,
        format=kernel.format,
        dtype=kernel.dtype,
        group=None if a.scales is None else a.scales.group,
        x_dtype=kernels.rounds_x_to(kernel),
        isa=kernel.isa,
        device=device_of(kernel),
        layout="rows" if transposed else "columns",
        m=a.shape[0],
        k=a.shape[1],
        n=group.n,
        nnz=a.nnz,
        seed=group.settings.seed,
        status="ok" if reason is None else "skipped",
        reason=reason,
        threads=group.threads,
        **{**group.run, **group.source.fields(a)},
    )
    return _Entry(kernel, part, transposed, row)


def _check(
    entry: _Entry,
    a: SparseMatrix,
    operands: dict[bool, Float32],
    outputs: dict[bool, Float32],
    bound: Bound,
) -> None:
    """Prepare and run once, and compare with float64; a kernel that is wrong or raises becomes a failed row."""
    row, out = entry.row, outputs[entry.transposed]
    out.fill(np.nan)
    try:
        if entry.kernel.origin not in _imported and entry.kernel.origin != "native":
            entry.kernel.prepare(a)  # imports its library, which takes seconds and is no preparation
            _imported.add(entry.kernel.origin)
        start = time.perf_counter()
        prepared = entry.kernel.prepare(a)
        row["prepare_s"] = time.perf_counter() - start
        prepared.run(operands[entry.transposed], out, transposed=entry.transposed)
    except Exception as error:  # a rival library may raise anything; the row says what
        fail(row, error)
        return
    row["nbytes"] = int(prepared.nbytes)
    worst = worst_error(out.T if entry.transposed else out, bound.expected, bound.allowed)
    if np.isfinite(worst):
        row["error_over_bound"] = worst
    if not worst <= 1:
        row.update(status="failed", reason=f"wrong result: an error is {worst:.3g} times its bound (or not a number)")
        return
    entry.prepared.append(prepared)


def _too_small(entry: _Entry) -> bool:
    """Whether the most copies that are made would fit the caches, so that these are swept before each call.

    Then they are for all kernels of the group: a sweep takes x and code away, too (0.07 ms instead of 0.05 for 512x512
    at 70 %, Zen 3, 2026-11), and those with enough copies looked faster than those without.
    """
    return entry.kernel.origin not in WALKED and entry.prepared[0].nbytes * MAX_COPIES < _cold_bytes()


def _copies(entry: _Entry, a: SparseMatrix, cold: bool) -> None:
    """For cold weights: as many copies as no cache holds, but not thousands."""
    if not cold or entry.kernel.origin in WALKED:
        return
    nbytes = max(entry.prepared[0].nbytes, 1)
    for _ in range(min(-(-_cold_bytes() // nbytes), MAX_COPIES) - 1):
        entry.prepared.append(entry.kernel.prepare(a))


def _cold_bytes() -> int:
    """Weights of so many bytes are in no cache when they are needed again."""
    return min(max(2 * machine.last_level_cache_bytes(), machine.claimed_cache_bytes()), MAX_COPIES_BYTES)


@cache
def _trash() -> Float32:
    return np.ones(_cold_bytes() // 4, dtype=np.float32)


def _walk() -> None:
    """Push everything else out of the caches. It only reads: lines written to would have to be written back first."""
    _trash().sum()


def _fill(entry: _Entry, samples: Samples, cold: bool, nnz: int, n: int) -> None:
    fill_times(entry.row, samples, work=2 * nnz * n)
    entry.row.update(
        cold=cold,
        copies=len(entry.prepared),
        working_set=entry.row["nbytes"] + 4 * n * (entry.row["m"] + entry.row["k"]),
    )
    entry.prepared.clear()
