"""Time everything that one shape can run on: dense kernels once, sparse ones at one pattern and sparsity after another.

The clocks are those of `compile` and `bench`: `runtime.measure.interleaved` for our kernels, with weights from memory
at N = 1, and `bench.timer` for the libraries' dense products, whose threads spin for up to 0.1 s after a call and would
be counted against whoever runs next. Our float32 dense kernel is in every round of both, so that a ratio is always one
of times that were taken together.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..._errors import ZeroskipError
from ...formats import DTYPES, value_bytes
from ...io import DENSE
from ...kernels import Kernel, registry, rounds_x_to
from ...ops.choice import HOPELESS, wrong_size
from ...runtime.measure import HasPacked, interleaved
from ...runtime.packing import native_kernels, pack
from ..timer import Candidate, interleave
from .check import Check
from .operands import Form, Operands

LIBRARIES = ("numpy", "torch")
_MOST_COPIES = 16
# Copies that would take longer than this to pack are not made: the walk before each sample empties the caches too.
_COPIES_S = 0.05
# A turn in which the dense kernel is off its usual time by this factor is taken again; not for ever on a busy machine.
_UNLIKE, _MOST_TURNS, _MOST_AGAIN = 1.15, 3, 12


@dataclass(frozen=True)
class Dense:
    """One dense call at one N: its time over that of our float32 kernel, measured in turns with it."""

    kernel: str
    dtype: str
    origin: str
    time_s: float
    ratio: float


@dataclass(frozen=True)
class Point:
    """One sparse kernel at one sparsity and N, and our float32 dense kernel in the same turns.

    Attributes:
        x: float32, or int8 where the kernel rounds x.
    """

    form: str
    kernel: str
    dtype: str
    x: str
    n: int
    sparsity: float
    nnz: int
    nbytes: int
    time_s: float
    dense_s: float


@dataclass(frozen=True)
class Failure:
    """A kernel whose result was wrong, or that raised."""

    kernel: str
    n: int | None
    sparsity: float
    reason: str


@dataclass(frozen=True)
class _Ready:
    """A sparse kernel's packed copies, checked, and the N that it is timed at."""

    form: Form
    kernel: Kernel
    nnz: int
    copies: Sequence[Any]
    ns: Sequence[int]


def allowed_dense(dtype: str) -> tuple[str, ...]:
    """Value types of dense kernels that are a fair rival: those that keep at least as many bits of a weight."""
    return tuple(other for other in DTYPES if value_bytes(8, other) >= value_bytes(8, dtype))


class Spots:
    """The measurements of one shape.

    Args:
        shape: (M, K).
        ns: Columns of x.
        seed: Of the operands.
        share_s: Time for one pattern and sparsity at one N, packing and checking not counted.
        cold_bytes: Memory to walk over at N = 1, so that no weight is in a cache.
        end: When time is up (of `time.perf_counter`): then `measure` breaks off, once it has measured anything at all.

    Attributes:
        cut: Whether it broke off.
    """

    def __init__(
        self,
        shape: tuple[int, int],
        ns: Sequence[int],
        *,
        seed: int,
        share_s: float,
        cold_bytes: int,
        end: float = math.inf,
    ) -> None:
        self.shape = shape
        self.failures: list[Failure] = []
        self.points: list[Point] = []
        self.dense: dict[int, list[Dense]] = {n: [] for n in ns}
        self._share_s = share_s
        self._cold = cold_bytes
        self._end = end
        self._again = 0
        self.cut = False
        self._operands = Operands(shape, max(ns), seed)
        self._x = {n: self._operands.x(n) for n in ns}
        self._anchor = anchor_name()
        self._anchored: Sequence[Any] = ()

    def measure_dense(self, dtypes: Sequence[str]) -> None:
        """Our dense kernels of these value types, and the libraries', at every N.

        Raises:
            ZeroskipError: If our float32 dense kernel is wrong: there is nothing to compare with.
        """
        ours = [kernel for kernel in native_kernels() if kernel.format == DENSE and kernel.dtype in dtypes]
        dense = [k for k in registry if k.origin in LIBRARIES and k.format == DENSE and k.why_not() is None]
        theirs = [kernel for kernel in dense if rounds_x_to(kernel) == "float32"]
        packs = {kernel.name: copies for kernel in ours if (copies := self._dense_copies(kernel))}
        libraries = {kernel.name: copies[0] for kernel in theirs if (copies := self._dense_copies(kernel))}
        if self._anchor not in packs:
            raise ZeroskipError(f"analyze: {self._anchor} fails here ({self.failures[0].reason}); report this.")
        self._anchored = packs[self._anchor]
        for n in self._x:
            self._time_dense(n, packs, libraries)

    def _dense_copies(self, kernel: Kernel) -> Sequence[Any]:
        """Copies of a dense kernel's weights; none where its result is wrong."""
        dense: Any = self._operands.dense(kernel.dtype)
        full = self._operands.full(kernel.dtype)
        x_dtype = rounds_x_to(kernel)

        def packed() -> Any:
            if kernel.origin != "native":
                return kernel.prepare(dense)
            return kernel.prepare(full) if x_dtype == "int8" else pack(kernel.name, dense)

        ns = [n for n in self._x if not wrong_size(kernel.name, n)]
        return self._checked(kernel, packed, Check(full, self._x, x_dtype=x_dtype), ns, 0.0) if ns else ()

    def _time_dense(self, n: int, packs: Mapping[str, Sequence[HasPacked]], libraries: Mapping[str, Any]) -> None:
        cold = self._cold if n == 1 else 0
        here = {name: copies for name, copies in packs.items() if not wrong_size(name, n)}
        own = interleaved(_copies_for(n, here), n, self._share_s, set(here), cold)
        base = own[self._anchor]
        for name, span in own.items():
            self.dense[n].append(Dense(name, registry.get(name).dtype, "native", span, span / base))
        for name, ratio in self._library_ratios(n, libraries, cold).items():
            kernel = registry.get(name)
            if kernel.origin == "native":
                continue
            self.dense[n].append(Dense(name, kernel.dtype, kernel.origin, ratio * base, ratio))

    def _library_ratios(self, n: int, libraries: Mapping[str, Any], cold: int) -> dict[str, float]:
        """Time of each library's dense product over that of ours, in the layout that suits the library best."""
        trash = np.ones(cold // 4, dtype=np.float32)
        before = trash.max if cold else None
        candidates = [Candidate(self._anchor, [self._call(self._anchored[0], n, False)], before)]
        for name, item in libraries.items():
            calls = [self._call(item, n, transposed) for transposed in (False, True)]
            candidates.append(Candidate(name, [min(calls, key=_second_run_s)], before))
        found = interleave(candidates, budget_s=self._share_s, rounds=3) if libraries else []
        return {c.name: samples.median_s / found[0].median_s for c, samples in zip(candidates, found, strict=False)}

    def _call(self, packed: Any, n: int, transposed: bool) -> Callable[[], object]:
        x = self._x[n]
        out = np.empty((self.shape[0], n), dtype=np.float32)
        if transposed:
            x, out = np.ascontiguousarray(x.T), np.ascontiguousarray(out.T)
        return partial(packed.run, x, out, transposed=transposed)

    def baseline(self, n: int, dtypes: Sequence[str]) -> Dense | None:
        """The fastest dense call of these value types."""
        found = [item for item in self.dense[n] if item.dtype in dtypes]
        return min(found, key=lambda item: item.ratio, default=None)

    def measure(self, forms: Sequence[Form], wanted: Mapping[str, Sequence[int]], sparsity: float) -> None:
        """All kernels of these forms (of one pattern) at one sparsity.

        Args:
            forms: Where entries are the same.
            wanted: For each value type, the N to measure.
            sparsity: Share of zeros.
        """
        pattern = self._operands.matrices(list(forms), sparsity)
        ready: list[_Ready] = []
        for form in forms:
            for dtype, ns in wanted.items():
                if self._late():
                    return
                fitting = {kernel.name: self._fitting(kernel, ns, sparsity) for kernel in kernels_of(form, dtype)}
                if not any(fitting.values()):
                    continue
                a = pattern.matrix(form, dtype)
                checks: dict[str, Check] = {}
                for kernel in kernels_of(form, dtype):
                    sizes, x_dtype = fitting[kernel.name], rounds_x_to(kernel)
                    if not sizes or any(kernel.rejects(a, n) for n in sizes):
                        continue
                    check = checks.get(x_dtype) or checks.setdefault(x_dtype, Check(a, self._x, x_dtype=x_dtype))
                    copies = self._checked(kernel, partial(kernel.prepare, a), check, sizes, sparsity)
                    ready.append(_Ready(form, kernel, a.nnz, copies, sizes if copies else ()))
        for n in self._x:
            if self._late():
                return
            self._time([item for item in ready if n in item.ns], n, sparsity)

    def _late(self) -> bool:
        late = bool(self.points) and time.perf_counter() > self._end
        self.cut = self.cut or late
        return late

    def _fitting(self, kernel: Kernel, ns: Sequence[int], sparsity: float) -> list[int]:
        """The N that a kernel is made for, and at which it was not hopeless with fewer entries."""
        lost = {
            point.n
            for point in self.points
            if point.kernel == kernel.name and point.sparsity >= sparsity and point.time_s > HOPELESS * point.dense_s
        }
        return [n for n in ns if n not in lost and not wrong_size(kernel.name, n)]

    def _checked(
        self, kernel: Kernel, prepare: Callable[[], Any], check: Check, ns: Sequence[int], sparsity: float
    ) -> Sequence[Any]:
        """A packed matrix whose result is right, as many times as N = 1 needs; nothing where it is wrong."""
        try:
            start = time.perf_counter()
            first = prepare()
            spent = time.perf_counter() - start
            wrong = check.wrong(first, ns)
        except Exception as error:  # a kernel or a library may raise anything; the report says what
            reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
            self.failures.append(Failure(kernel.name, None, sparsity, reason))
            return ()
        if wrong:
            self.failures.append(Failure(kernel.name, wrong[0], sparsity, wrong[1]))
            return ()
        needed = min(_MOST_COPIES, -(-self._cold // max(1, int(first.nbytes)))) if 1 in ns else 1
        count = min(needed - 1, int(_COPIES_S / max(spent, 1e-6))) if kernel.origin == "native" else 0
        return [first, *(prepare() for _ in range(count))]

    def _time(self, ready: Sequence[_Ready], n: int, sparsity: float) -> None:
        if not ready:
            return
        packs = {self._anchor: self._anchored, **{item.kernel.name: item.copies for item in ready}}
        spans = self._steady(_copies_for(n, packs), n)
        for item in ready:
            kernel = item.kernel
            self.points.append(
                Point(
                    form=str(item.form),
                    kernel=kernel.name,
                    dtype=kernel.dtype,
                    x=rounds_x_to(kernel),
                    n=n,
                    sparsity=sparsity,
                    nnz=item.nnz,
                    nbytes=int(item.copies[0].nbytes),
                    time_s=spans[kernel.name],
                    dense_s=spans[self._anchor],
                )
            )

    def _steady(self, packs: Mapping[str, Sequence[HasPacked]], n: int) -> dict[str, float]:
        """Times of one turn; of up to three where the dense kernel was unlike itself, for then others were too."""
        seen = [item.time_s for item in self.dense[n] if item.kernel == self._anchor]
        usual = statistics.median([*seen, *(point.dense_s for point in self.points if point.n == n)])

        def off(spans: Mapping[str, float]) -> float:
            return abs(math.log(spans[self._anchor] / usual))

        turns: list[dict[str, float]] = []
        while not turns or (len(turns) < _MOST_TURNS and off(turns[-1]) > math.log(_UNLIKE)):
            turns.append(interleaved(packs, n, self._share_s, {self._anchor}, self._cold if n == 1 else 0))
            self._again += len(turns) > 1
            if time.perf_counter() > self._end or self._again >= _MOST_AGAIN:
                break
        return min(turns, key=off)


def _copies_for(n: int, packs: Mapping[str, Sequence[HasPacked]]) -> dict[str, Sequence[HasPacked]]:
    """All copies at N = 1, one elsewhere: what is used again and again stays in a cache."""
    return {name: copies if n == 1 else copies[:1] for name, copies in packs.items()}


def _second_run_s(call: Callable[[], object]) -> float:
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def anchor_name() -> str:
    """Our float32 dense kernel, which everything is timed beside."""
    dense = [kernel.name for kernel in native_kernels() if kernel.format == DENSE and kernel.dtype == "float32"]
    return next(name for name in dense if not any(wrong_size(name, n) for n in (1, 8, 128)))


def kernels_of(form: Form, dtype: str) -> list[Kernel]:
    """Our kernels of a format and value type, of the newest instruction set here that has one.

    Those in fixed point are left out: they need `--activations int16`, and would stand for both.
    """
    fitting = [kernel for kernel in native_kernels() if kernel.format == form.format and kernel.dtype == dtype]
    return [kernel for kernel in fitting if rounds_x_to(kernel) != "int16"]


def import_libraries() -> None:
    """Import torch where it is installed: its dense product is part of the baseline."""
    name = "spmm_dense_f32_torch"
    if "torch" not in sys.modules and name in registry and registry.get(name).why_not() is None:
        import torch  # noqa: F401
