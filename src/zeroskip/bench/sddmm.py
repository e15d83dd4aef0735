"""SDDMM of one pattern at one depth: every kernel is checked before it is timed, and has one row."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument, ZeroskipError
from ..formats import SparseMatrix
from ..kernels import ISAS, OURS, OperationKernel, operations, registry
from ..testing.sddmm_bounds import sddmm_bound
from . import schema
from .operands import DENSE_ELEMS, Source, vectors
from .rows import Row, compare, fail, fill_times, new_row, worst_error
from .timer import Candidate, interleave

Float32 = npt.NDArray[np.float32]

# The float64 reference holds a product for each entry and each column of so many at a time; beyond, it takes minutes.
MOST_WORK = 2**33
DENSE_SUFFIX = "_dense"


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


def select(wanted: Sequence[str], peers: Sequence[str]) -> list[OperationKernel]:
    """The kernels asked for: `auto` (ours of the newest instruction set for each format), names or globs, and rivals.

    Raises:
        InvalidArgument: If a kernel or peer is not known.
    """
    known = [kernel for kernel in operations if kernel.op == "sddmm" and kernel.dtype == "float32"]
    found = {kernel.name: kernel for name in wanted for kernel in _wanted(name, known)}
    rivals = [kernel for kernel in known if kernel.origin != "native"]
    origins = {kernel.origin for kernel in [*rivals, *registry]} - set(OURS)
    if wrong := sorted(set(peers) - origins - {"auto", "all", "none"}):
        names = ", ".join(sorted({kernel.origin for kernel in rivals}))
        raise InvalidArgument(f"bench: peer {wrong[0]!r} is not known; choose auto, all, none or of: {names}.")
    for kernel in rivals:
        if "all" in peers or kernel.origin in peers or ("auto" in peers and role(kernel) == "dense"):
            found[kernel.name] = kernel
    return list(found.values())


def _wanted(name: str, known: Sequence[OperationKernel]) -> list[OperationKernel]:
    ours = [kernel for kernel in known if kernel.origin == "native"]
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
    """Check, then time those that passed, then compare. Blocks take part where the pattern has them."""
    a, depth = group.a, group.depth
    left, right = (vectors(group.seed, depth, size).T.copy() for size in a.shape)
    reference = sddmm_bound(a, left, right.T)
    rows, candidates, timed = [], [], []
    for kernel in group.chosen:
        if kernel.format == "bsr":
            continue
        row = _row(group, kernel)
        rows.append(row)
        if row["status"] != "ok":
            continue
        call = _checked(row, kernel, a, left, right, reference)
        if call is not None:
            candidates.append(Candidate(kernel.name, [call], engine=kernel.origin))
            timed.append(row)
    samples = interleave(candidates, budget_s=group.budget_s, rounds=group.rounds)
    for row, found in zip(timed, samples, strict=True):
        fill_times(row, found, work=2 * a.nnz * depth)
        row.update(cold=False, copies=1, working_set=row["nbytes"] + 4 * depth * sum(a.shape) + 4 * a.nnz)
    compare(rows)
    for row in rows:
        schema.check_row(row)
    return rows


def too_much(a: SparseMatrix, depth: int) -> str | None:
    """Why this pattern is not measured at this depth; None where it is."""
    work = a.nnz * depth
    return f"its check in float64 takes {work:.1e} products, above {MOST_WORK:.1e}" if work > MOST_WORK else None


def _checked(
    row: Row, kernel: OperationKernel, a: SparseMatrix, left: Float32, right: Float32, reference: Any
) -> Callable[[], Any] | None:
    """The call to time, after its result was held to the bound; None where it failed, which the row then says."""
    out = np.full(a.nnz, np.nan, dtype=np.float32)
    try:
        start = time.perf_counter()
        pattern = a if kernel.format == a.name else a.convert(kernel.format)
        work = kernel.bind(pattern) if kernel.bind else partial(kernel.function, pattern)
        row["prepare_s"] = time.perf_counter() - start
        work(left, right, out, None, 1.0)
    except ZeroskipError as error:
        row.update(status="skipped", reason=str(error), prepare_s=None)
        return None
    except Exception as error:  # a rival library may raise anything; the row says what
        fail(row, error)
        return None
    row["nbytes"] = sum(int(getattr(pattern, name).nbytes) for name in pattern.array_names if name != "data")
    worst = worst_error(out[None], reference.expected, reference.allowed)
    if np.isfinite(worst):
        row["error_over_bound"] = worst
    if not worst <= 1:
        row.update(status="failed", reason=f"wrong result: an error is {worst:.3g} times its bound (or not a number)")
        return None
    return partial(work, left, right, out, None, 1.0)


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
        x_dtype="float32",
        isa=kernel.isa,
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
