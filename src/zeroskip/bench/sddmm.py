"""The runner of `zeroskip bench sddmm`: kernels are checked before they are timed, a row each a pattern and depth."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._arrays import copied_to_lines
from .._errors import InvalidArgument, ZeroskipError
from ..formats import BSR, SparseMatrix
from ..formats._dtypes import to_bits, to_float32
from ..kernels import ISAS, OURS, OperationKernel, operations, registry
from ..testing import Bound
from ..testing.sddmm_bounds import sddmm_bound
from . import limits, machine, schema
from .operands import DENSE_ELEMS, Source, vectors
from .rows import Row, compare, fail, fill_times, new_row, worst_error
from .selection import CPU, device_of
from .timer import Candidate, interleave

Progress = Callable[[str, int, int], None]
Float32 = npt.NDArray[np.float32]

# The float64 reference holds a product for each entry and each column of so many at a time; beyond, it takes minutes.
MOST_WORK = 2**33
DENSE_SUFFIX = "_dense"
_imported: set[str] = set()


@dataclass(frozen=True)
class SddmmSettings:
    """What `zeroskip bench sddmm` was asked for.

    Args:
        sources: Where the patterns come from.
        depths: Columns of Q and K.
        dtype: float32, or bfloat16: then ours read Q and K as bfloat16, and rivals the same numbers in float32.
        kernels, peers: As `select` takes them.
        threads: None for ZEROSKIP_NUM_THREADS, or all cores.
        budget_s: Seconds of timing for each (pattern, depth).
    """

    sources: Sequence[Source]
    depths: Sequence[int] = (64, 128)
    dtype: str = "float32"
    kernels: Sequence[str] = ("auto",)
    peers: Sequence[str] = ("all",)
    threads: int | None = None
    seed: int = 0
    budget_s: float = 2.0
    rounds: int = 7


@dataclass(frozen=True)
class SddmmGroup:
    """One pattern at one depth, and the kernels to compare there.

    Args:
        run: What all rows of a run have in common, by field of a row.
    """

    source: Source
    a: SparseMatrix
    depth: int
    chosen: Sequence[OperationKernel]
    threads: int
    seed: int
    budget_s: float
    rounds: int
    run: Mapping[str, Any]


def bench_sddmm(settings: SddmmSettings, *, progress: Progress | None = None) -> Iterator[Row]:
    """Measure, giving a row for each (pattern, depth, kernel) as soon as its group is done.

    Raises:
        InvalidArgument: If a kernel or peer is not known, or a pattern has too many entries to be checked.
    """
    chosen = select(settings.kernels, settings.peers, settings.dtype)
    for source in settings.sources:
        source.check()
    threads = machine.use_threads(settings.threads)
    run = limits.fields(threads)
    total, done = len(settings.sources) * len(settings.depths), 0
    for source in settings.sources:
        a = source.matrix()
        if reason := too_much(a, max(settings.depths)):
            name = source.fields(a).get("matrix") or f"{a.shape[0]}x{a.shape[1]}"
            raise InvalidArgument(f"bench sddmm: {name} at depth {max(settings.depths)}: {reason}; leave it out.")
        own = (threads, settings.seed, settings.budget_s, settings.rounds, run)
        for depth in settings.depths:
            yield from measure(SddmmGroup(source, a, depth, chosen, *own))
            done += 1
            if progress is not None:
                progress("bench sddmm", done, total)


def select(
    wanted: Sequence[str], peers: Sequence[str], dtype: str = "float32", device: str = CPU
) -> list[OperationKernel]:
    """The kernels asked for: `auto` (ours of the newest instruction set for each format), names or globs, and rivals.

    Args:
        dtype: Of ours; rivals are those of float32.
        device: Where `auto` and `all` look.
    Raises:
        InvalidArgument: If a kernel or peer is not known.
    """
    known = [
        kernel
        for kernel in operations
        if kernel.op == "sddmm" and kernel.dtype == (dtype if kernel.origin == "native" else "float32")
    ]
    found = {kernel.name: kernel for name in wanted for kernel in _wanted(name, known, device)}
    rivals = [kernel for kernel in known if kernel.origin != "native" and device_of(kernel) == device]
    origins = {kernel.origin for kernel in [*rivals, *registry]} - set(OURS)
    if wrong := sorted(set(peers) - origins - {"auto", "all", "none"}):
        names = ", ".join(sorted({kernel.origin for kernel in rivals}))
        raise InvalidArgument(f"bench: peer {wrong[0]!r} is not known; choose auto, all, none or of: {names}.")
    for kernel in rivals:
        if "all" in peers or kernel.origin in peers or ("auto" in peers and role(kernel) == "dense"):
            found[kernel.name] = kernel
    return list(found.values())


def _wanted(name: str, known: Sequence[OperationKernel], device: str) -> list[OperationKernel]:
    ours = [kernel for kernel in known if kernel.origin == "native" and device_of(kernel) == device]
    if name == "all":
        return ours
    if name == "auto":
        best: dict[str, OperationKernel] = {}
        for kernel in ours:
            last = best.get(kernel.format)
            if kernel.why_not() is None and (last is None or ISAS.index(kernel.isa) > ISAS.index(last.isa)):
                best[kernel.format] = kernel
        return list(best.values())
    hits = [kernel for kernel in known if fnmatchcase(kernel.name, name)]
    if not hits:
        names = ", ".join(kernel.name for kernel in known)
        raise InvalidArgument(f"bench: kernel {name!r} is not known; choose auto, all, a glob or of: {names}.")
    return hits


def role(kernel: OperationKernel) -> str:
    """candidate, dense or peer."""
    if kernel.origin == "native":
        return "candidate"
    return "dense" if kernel.name.endswith(DENSE_SUFFIX) else "peer"


def measure(group: SddmmGroup) -> list[Row]:
    """Check, then time those that passed, then compare. Kernels for blocks take part where the pattern is a BSR."""
    a, depth = group.a, group.depth
    operands = [copied_to_lines(vectors(group.seed, depth, size).T) for size in a.shape]
    narrow = any(kernel.dtype == "bfloat16" for kernel in group.chosen)
    if narrow:
        bits = [to_bits(x, "bfloat16") for x in operands]
        operands = [to_float32(x, "bfloat16") for x in bits]
    rows, candidates, timed = [], [], []
    references: dict[bool, Bound] = {}
    for kernel in group.chosen:
        blocks = kernel.format == "bsr"
        if blocks and not isinstance(a, BSR):
            continue
        pattern = a if blocks or a.name == "csr" else a.convert("csr")
        if blocks not in references:
            references[blocks] = sddmm_bound(pattern, operands[0], operands[1].T)
        row = _row(group, kernel)
        rows.append(row)
        if row["status"] != "ok":
            continue
        given = bits if kernel.dtype == "bfloat16" else operands
        candidate = _checked(row, kernel, pattern, given, references[blocks])
        if candidate is not None:
            candidates.append(candidate)
            timed.append(row)
    samples = interleave(candidates, budget_s=group.budget_s, rounds=group.rounds)
    for row, found in zip(timed, samples, strict=True):
        fill_times(row, found, work=2 * a.nnz * depth)
        size = 2 if row["dtype"] == "bfloat16" else 4
        row.update(cold=False, copies=1, working_set=row["nbytes"] + size * depth * sum(a.shape) + 4 * a.nnz)
    compare(rows)
    for row in rows:
        schema.check_row(row)
    return rows


def too_much(a: SparseMatrix, depth: int) -> str | None:
    """Why this pattern is not measured at this depth; None where it is."""
    work = a.nnz * depth
    return f"its check in float64 takes {work:.1e} products, above {MOST_WORK:.1e}" if work > MOST_WORK else None


def _checked(
    row: Row, kernel: OperationKernel, a: SparseMatrix, operands: Sequence[npt.NDArray[Any]], reference: Bound
) -> Candidate | None:
    """What to time, after its result was held to the bound; None where it failed, which the row then says."""
    out = np.full(a.nnz, np.nan, dtype=np.float32)

    def prepare() -> tuple[SparseMatrix, Callable[..., Any]]:
        found = a if kernel.format == a.name else a.convert(kernel.format)
        return found, kernel.bind(found) if kernel.bind else partial(kernel.function, found)

    try:
        if kernel.origin not in _imported and kernel.origin != "native":
            prepare()  # imports its library, which takes seconds and is no preparation
            _imported.add(kernel.origin)
        start = time.perf_counter()
        pattern, work = prepare()
        row["prepare_s"] = time.perf_counter() - start
        work(*operands, out, None, 1.0)
    except ZeroskipError as error:
        row.update(status="skipped", reason=str(error), prepare_s=None)
        return None
    except Exception as error:  # a rival library may raise anything; the row says what
        fail(row, error)
        return None
    own = sum(int(getattr(pattern, name).nbytes) for name in pattern.array_names if name != "data")
    row["nbytes"] = own + int(getattr(work, "nbytes", 0))
    worst = worst_error(out[None], reference.expected, reference.allowed)
    if np.isfinite(worst):
        row["error_over_bound"] = worst
    if not worst <= 1:
        row.update(status="failed", reason=f"wrong result: an error is {worst:.3g} times its bound (or not a number)")
        return None
    on = getattr(work, "on", None)  # a device has its operands before it is timed
    call = on(*operands) if on else partial(work, *operands, out, None, 1.0)
    return Candidate(kernel.name, [call], engine=kernel.origin, clock=getattr(work, "seconds", None))


def _row(group: SddmmGroup, kernel: OperationKernel) -> Row:
    a, reason = group.a, kernel.why_not()
    whole = role(kernel) == "dense" or kernel.format == "bitmask"
    if reason is None and whole and a.shape[0] * a.shape[1] > DENSE_ELEMS:
        reason = f"laid out in full the matrix takes {4 * a.shape[0] * a.shape[1] / 1e9:.1f} GB, above what is tried"
    return new_row(
        op="sddmm",
        kernel=kernel.name,
        origin=kernel.origin,
        role=role(kernel),
        format="dense" if role(kernel) == "dense" else kernel.format,
        dtype=kernel.dtype,
        x_dtype=kernel.dtype,
        isa=kernel.isa,
        device=device_of(kernel),
        layout="rows",
        m=a.shape[0],
        k=a.shape[1],
        n=group.depth,
        nnz=a.nnz,
        seed=group.seed,
        status="ok" if reason is None else "skipped",
        reason=reason,
        threads=group.threads,
        **{**group.run, **group.source.fields(a)},
    )
