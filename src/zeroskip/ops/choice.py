"""Choosing a kernel by measuring: which candidates there are, and why one of them wins; `ops.clock` times them."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..formats import BSR, COO, NM, SparseMatrix, value_bytes
from ..kernels import Kernel, newest, registry, rounds_within, rounds_x_to
from .clock import HOPELESS, SETTLE_MAX_S, Span, measure, settle

__all__ = [
    "HOPELESS",
    "SETTLE_MAX_S",
    "Measured",
    "Span",
    "candidates",
    "decide",
    "estimate",
    "hopeless",
    "measure",
    "measured_as_json",
    "measured_from",
    "rounds_x",
    "settle",
    "statistics_of",
    "wrong_size",
]

OPTIMIZE = ("speed", "memory")
# Of sparse kernels closer than this the one of fewer bytes is taken: nobody sees such a difference.
TIE = 1.01
# Where noise says that two candidates may be equal, this much of it counts at most; dense ones are equal within `TIE`.
MOST_NOISE = 0.03
# Of equal dense products: ours has no threads that spin, NumPy's do so for longest.
DENSE_ORDER = ("native", "torch", "numpy")
# The last part of a kernel's name where it is made for few columns of x.
_TILE = re.compile(r"_n(\d+)$")


@dataclass(frozen=True)
class Measured:
    """What was found out about one candidate.

    Attributes:
        skipped: Why it was not timed, or not to the end.
        noise: Standard error of the time, as a share of it.
    """

    kernel: str
    time_s: float | None
    prepare_s: float | None
    nbytes: int | None
    skipped: str | None = None
    noise: float = 0.0


# Sums over edges are weighed where A has so many elements, or so few entries a row beside so many columns of x: kernels
# of weights pass over blocks of columns that hold nearly nothing there (98 %, N = 128: 1.3 times the time at 512x512,
# 1.4 at 512x2048).
GRAPH_ELEMS, GRAPH_DEGREE, GRAPH_COLUMNS = 2**28, 48, 16


def candidates(a: SparseMatrix, n: int, x_dtype: str = "float32") -> list[Kernel]:
    """The kernels that "auto" weighs for `a`: native ones of the best instruction set, and dense ones.

    Values are never narrowed: sparse kernels of the matrix's own dtype, and dense ones of either. Sparse float32 ones
    count only where there is none for `n` columns. One column of a quantised matrix is another exception: float32 ones
    take it dequantised, and reading numbers may cost less there than decoding codes. Nor is x narrowed:
    kernels that round it count only where `x_dtype` is as coarse, or coarser. torch counts only where the program has
    imported it already.
    """
    usable = [kernel for kernel in registry if kernel.why_not() is None and kernel.rejects(a, n) is None]
    usable = [kernel for kernel in usable if rounds_within(kernel, x_dtype)]
    native = newest([kernel for kernel in usable if kernel.origin == "native"])
    dense = [kernel for kernel in native if kernel.format == "dense" and kernel.dtype in (a.dtype, "float32")]
    sparse = [kernel for kernel in native if kernel.format != "dense"]
    if a.shape[0] * a.shape[1] > GRAPH_ELEMS or (n >= GRAPH_COLUMNS and a.nnz <= GRAPH_DEGREE * a.shape[0]):
        sparse += [kernel for kernel in usable if kernel.origin == "zeroskip"]
    if all(wrong_size(kernel.name, n) for kernel in sparse):
        sparse = [kernel for kernel in usable if kernel.origin == "scipy"]
    own = [kernel for kernel in sparse if kernel.dtype == a.dtype]
    libraries = {"numpy"} | ({"torch"} & set(sys.modules))
    theirs = [kernel for kernel in usable if kernel.origin in libraries and kernel.format == "dense"]
    dense += [kernel for kernel in theirs if not rounds_x(kernel)]  # who does rounds values and results, too
    plain = [kernel for kernel in sparse if kernel.dtype == "float32"]
    fits = any(wrong_size(kernel.name, n) is None for kernel in own)
    return own + ([] if fits and (a.scales is None or n > 1) else plain) + dense


def rounds_x(kernel: Kernel) -> bool:
    """Whether a kernel rounds x before it multiplies."""
    return rounds_x_to(kernel) != "float32"


def rounding_of(x_dtype: str) -> str:
    """What a reason says of a kernel that rounds x; nothing of one that does not."""
    names = {"int8": "8 bits", "int16": "16 bits", "bfloat16": "bfloat16"}
    return f"; x rounded to {names[x_dtype]}" if x_dtype in names else ""


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
    if not isinstance(value, list) or not all(isinstance(row, list) and len(row) == 6 for row in value):
        return None
    found = []
    for kernel, time_s, prepare_s, nbytes, skipped, noise in value:
        numbers = [noise, *(item for item in (time_s, prepare_s, nbytes) if item is not None)]
        if any(isinstance(item, bool) or not isinstance(item, int | float) for item in numbers):
            return None
        if not all(0 <= item < math.inf for item in numbers) or not isinstance(skipped, str | None):
            return None
        found.append(Measured(kernel, time_s, prepare_s, nbytes, skipped, noise))
    timed = any(item.time_s for item in found)
    return tuple(found) if timed and sorted(names) == sorted(str(item.kernel) for item in found) else None


def measured_as_json(measured: Sequence[Measured]) -> list[list[Any]]:
    """Candidates as rows of a JSON document."""
    return [[x.kernel, x.time_s, x.prepare_s, x.nbytes, x.skipped, x.noise] for x in measured]


def decide(
    measured: Sequence[Measured],
    formats: Mapping[str, str],
    origins: Mapping[str, str] | None = None,
    optimize: str = "speed",
) -> tuple[str, str]:
    """The winner's name, and the reason in words.

    Args:
        measured: All candidates; those without a time are left out, of each side those that were timed to the end count
            where there are any.
        formats: Format of each kernel by name.
        origins: Who wrote it; those that are not there count as ours.
        optimize: "speed": the fastest. Sparse wins where it is faster than dense by more than noise (3 % at most). Of
            sparse kernels within 1 % of the fastest the smallest is taken; of dense ones that are equal within 1 %,
            or within noise, ours before torch's and NumPy's. "memory": the smallest that beats dense, if one does.
    """
    timed = [item for item in measured if item.time_s is not None]
    dense = _to_the_end([item for item in timed if formats[item.kernel] == "dense"])
    sparse = _to_the_end([item for item in timed if formats[item.kernel] != "dense"])
    if not dense and not sparse:
        raise ValueError("decide: no candidate was timed")
    if not sparse:
        best = _best_dense(dense, origins or {})
        return best.kernel, f"dense ({_ms(best)}): no sparse kernel takes this matrix, or could pay"
    first = min(sparse, key=_time)
    if not dense:
        return first.kernel, f"{formats[first.kernel]} ({_ms(first)}): the only candidates"
    baseline = min(dense, key=_time)
    if not _beats(first, baseline):
        return _best_dense(dense, origins or {}).kernel, (
            f"dense: the best sparse kernel, {formats[first.kernel]}, is {_time(baseline) / _time(first):.2f}x dense "
            f"({_ms(first)} against {_ms(baseline)})"
        )
    fast = [item for item in sparse if _time(item) <= TIE * _time(first)]
    if optimize == "memory":
        fast = [item for item in timed if formats[item.kernel] != "dense"]
    winner = min((item for item in fast if _beats(item, baseline)), key=lambda item: (item.nbytes or 0, _time(item)))
    ratio = f"{_time(baseline) / _time(winner):.2f}x dense ({_ms(winner)} against {_ms(baseline)})"
    return winner.kernel, f"{formats[winner.kernel]} {ratio}"


def _to_the_end(timed: Sequence[Measured]) -> list[Measured]:
    """Those that were timed to the end; all where none was."""
    return [item for item in timed if item.skipped is None] or list(timed)


def _time(item: Measured) -> float:
    assert item.time_s is not None
    return item.time_s


def _noise(one: Measured, other: Measured) -> float:
    """By how much the ratio of two times may be wrong, as far as that is believed."""
    return min(math.hypot(one.noise, other.noise), MOST_NOISE)


def _beats(item: Measured, dense: Measured) -> bool:
    return _time(item) * (1 + _noise(item, dense)) < _time(dense)


def _best_dense(dense: Sequence[Measured], origins: Mapping[str, str]) -> Measured:
    """The fastest, or one that is as fast and disturbs others less."""
    fastest = min(dense, key=_time)
    equal = [item for item in dense if _time(item) <= max(TIE, 1 + _noise(item, fastest)) * _time(fastest)]

    def rank(item: Measured) -> int:
        origin = origins.get(item.kernel, "native")
        return DENSE_ORDER.index(origin) if origin in DENSE_ORDER else len(DENSE_ORDER)

    return min(equal, key=lambda item: (rank(item), _time(item)))


def _ms(item: Measured) -> str:
    return f"{_time(item) * 1e3:.3g} ms"
