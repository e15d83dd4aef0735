"""Inspector and executor: choose a kernel for a matrix once, pack it, and run it many times."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._errors import InvalidArgument, KernelUnavailable
from ..formats import SparseMatrix, like, registry
from ..kernels import X_DTYPES, Kernel, Prepared, rounds_x_to
from ..kernels._base import Float32
from . import _cache
from ._check import (
    check_activation,
    check_bias,
    check_count,
    check_kernel,
    check_matrix,
    check_operand,
    check_operation,
)
from .choice import (
    OPTIMIZE,
    Measured,
    candidates,
    decide,
    hopeless,
    measure,
    measured_as_json,
    measured_from,
    rounding_of,
    statistics_of,
)


@dataclass(frozen=True, eq=False)
class Plan:
    """A packed matrix and the kernel that runs it.

    Attributes:
        op: spmm, spmv or linear.
        kernel: Name of the kernel that runs.
        prepare_s: Seconds that converting and packing took, for this kernel alone.
        nbytes: Bytes of the packed matrix.
        reason: Why this kernel, in words.
        measured: Every candidate, with its time or why it has none.
        prepared: The packed matrix.
    """

    op: str
    kernel: str
    prepare_s: float
    nbytes: int
    reason: str
    measured: tuple[Measured, ...]
    prepared: Prepared

    @property
    def shape(self) -> tuple[int, int]:
        """(M, K)."""
        return self.prepared.shape

    def __call__(self, x: Any, bias: Any = None, activation: str | None = None) -> Any:
        """Run: activation(A @ x + bias), of the kind and dtype of `x`.

        Args:
            x: spmm (K, N) with any N, spmv (K,), linear (..., K); float32, bfloat16 or float16. NumPy, torch or DLPack.
            bias: (M,), or None.
            activation: None, relu, gelu, gelu_tanh, silu or tanh.
        """
        return self.run_checked(check_operand(self.op, self.op, x, self.prepared.shape), x, bias, activation)

    def run_checked(self, operand: Float32, template: Any, bias: Any, activation: str | None) -> Any:
        """`__call__` with x as `check_operand` returned it; the result is of the kind of `template`."""
        rows, columns = self.prepared.shape
        added = check_bias(self.op, bias, rows)
        check_activation(self.op, activation)
        transposed = self.op == "linear"
        shape = (*operand.shape[:-1], rows) if transposed else (rows, *operand.shape[1:])
        if operand.ndim != 2:  # a call with few entries takes as long as five of these views
            operand = operand.reshape((-1, columns) if transposed else (columns, -1))
        n = operand.shape[0] if transposed else operand.shape[1]
        out = np.empty((n, rows) if transposed else (rows, n), dtype=np.float32)
        if n:
            self.prepared.run(operand, out, bias=added, activation=activation, transposed=transposed)
        return like(out if out.shape == shape else out.reshape(shape), template)


def plan(
    op: str,
    a: SparseMatrix,
    *,
    n: int,
    kernel: str = "auto",
    budget_s: float = 0.2,
    flush_bytes: int = 0,
    cache: bool = True,
    x_dtype: str = "float32",
    optimize: str = "speed",
) -> Plan:
    """Choose (or take) a kernel for `a` and pack the matrix for it.

    Args:
        op: "spmm", "spmv" or "linear".
        a: The matrix, (M, K). It is copied into the packed form and not needed afterwards.
        n: Columns of x (vectors at a time) to choose for; the plan then runs with any number.
        kernel: "auto" measures the candidates, dense ones among them; a name of `zeroskip list kernels` is taken.
        budget_s: Time to measure, beside packing each candidate and waiting for the threads of other libraries.
        flush_bytes: 0 measures what a matrix costs that is multiplied again and again: what fits the caches stays
            there, at n = 1 as well. For a layer of a model that is larger than the caches pass twice what they hold:
            so much other memory is then read between two runs.
        cache: Whether to take times that were measured before for a matrix like this one, here and with the same
            kernels; the reason then says "from cache". False measures anew, and later calls take what it finds.
        x_dtype: What "auto" may round x to. "bfloat16" admits kernels that multiply in it, for bfloat16 weights (AMX);
            "int8" those too, whose rounding is never the larger, and kernels that round x to 8 bits, each column by
            itself, and multiply int8 or int4 codes in integers. By default x is multiplied as it is. A kernel that is
            named does what it does.
        optimize: "speed" takes the fastest, of sparse ones within 1 % the smallest; "memory" the smallest that is
            faster than dense.
    Returns:
        The plan; call it with x.
    Raises:
        KernelUnavailable: If the named kernel is unknown, cannot run here or does not take `a`, or none does.
    """
    check_operation("plan", op)
    check_matrix("plan", "a", a)
    n = check_count("plan", "n", n)
    if op == "spmv" and n != 1:
        raise InvalidArgument(f"plan: n is {n} but op is 'spmv', which takes one vector; pass n=1 or op='spmm'.")
    if budget_s <= 0:
        raise InvalidArgument(f"plan: budget_s is {budget_s}, it must be above 0; leave it out for 0.2.")
    if x_dtype not in X_DTYPES:
        raise InvalidArgument(f"plan: x_dtype is {x_dtype!r}; choose one of: {', '.join(X_DTYPES)}.")
    if optimize not in OPTIMIZE:
        raise InvalidArgument(f"plan: optimize is {optimize!r}; choose one of: {', '.join(OPTIMIZE)}.")
    if kernel != "auto":
        packed = _Packer(a).pack(check_kernel("plan", kernel, a, n))
        found = Measured(kernel, None, packed.seconds, packed.prepared.nbytes, "named by the caller")
        return _plan(op, packed, "named by the caller", (found,))
    weighed = candidates(a, n, x_dtype)
    if not weighed:
        raise KernelUnavailable(
            f"{op}: a has shape {a.shape} and {a.nnz} entries, too large to lay out in full or in blocks of columns; "
            "use ops.gspmm, made for graphs, or pip install scipy."
        )
    return _measured_plan(op, a, n, weighed, budget_s, flush_bytes, cache, optimize)


@dataclass(frozen=True)
class _Packed:
    prepared: Prepared
    seconds: float


class _Packer:
    """Packs one matrix for several kernels, converting it to each format once and charging everyone who uses it."""

    def __init__(self, a: SparseMatrix) -> None:
        self._converted: dict[str, tuple[SparseMatrix, float]] = {a.name: (a, 0.0)}
        self._a = a

    def pack(self, kernel: Kernel) -> _Packed:
        source, spent = self._source(kernel.format)
        start = time.perf_counter()
        prepared = kernel.prepare(source)
        return _Packed(prepared, spent + time.perf_counter() - start)

    def _source(self, name: str) -> tuple[SparseMatrix, float]:
        if name not in ("csr", "bitmask"):  # the others need parameters, or are no storage format
            return self._a, 0.0
        if name not in self._converted:
            start = time.perf_counter()
            converted = self._a.convert(registry.get(name))
            self._converted[name] = converted, time.perf_counter() - start
        return self._converted[name]


def _measured_plan(
    op: str,
    a: SparseMatrix,
    n: int,
    found: Sequence[Kernel],
    budget_s: float,
    flush_bytes: int,
    cache: bool,
    optimize: str,
) -> Plan:
    names = [kernel.name for kernel in found]
    packer = _Packer(a)
    packed: dict[str, _Packed] = {}
    key = {"what": op, **statistics_of(a), "n": n, "flush_bytes": flush_bytes, "kernels": names}
    measured = measured_from(_cache.recall(key, budget_s=budget_s), names) if cache else None
    remembered = measured is not None
    if measured is None:
        dropped = hopeless(found, a, n)
        packed = {kernel.name: packer.pack(kernel) for kernel in found if kernel.name not in dropped}
        measured = _measure(op, packed, dropped, n, budget_s, flush_bytes, found)
        _cache.remember(key, measured_as_json(measured), budget_s=budget_s)
    formats, origins = ({kernel.name: getattr(kernel, what) for kernel in found} for what in ("format", "origin"))
    winner, reason = decide(measured, formats, origins, optimize)
    chosen = next(kernel for kernel in found if kernel.name == winner)
    if a.scales is not None and all(kernel.dtype != a.dtype for kernel in found):
        reason += f"; no kernel here takes {a.dtype} values, they run dequantised to float32"
    elif a.scales is not None and chosen.dtype != a.dtype:
        reason += f"; the {a.dtype} values run dequantised to float32"
    reason += rounding_of(rounds_x_to(chosen))
    if remembered:
        reason += "; from cache"
        packed[winner] = packer.pack(chosen)
    return _plan(op, packed[winner], reason, measured)


def _measure(
    op: str,
    packed: Mapping[str, _Packed],
    dropped: Mapping[str, str],
    n: int,
    budget_s: float,
    flush_bytes: int,
    found: Sequence[Kernel],
) -> tuple[Measured, ...]:
    """Every candidate with its time, or why it has none."""
    spans = measure(
        [item.prepared for item in packed.values()],
        n,
        transposed=op == "linear",
        budget_s=budget_s,
        flush_bytes=flush_bytes,
        dense=[kernel.name for kernel in found if kernel.format == "dense"],
    )
    timed = [
        Measured(name, span.time_s, item.seconds, item.prepared.nbytes, span.dropped, span.noise)
        for (name, item), span in zip(packed.items(), spans, strict=True)
    ]
    return (*timed, *(Measured(name, None, None, None, why) for name, why in dropped.items()))


def _plan(op: str, packed: _Packed, reason: str, measured: Sequence[Measured]) -> Plan:
    prepared = packed.prepared
    return Plan(op, prepared.kernel, packed.seconds, prepared.nbytes, reason, tuple(measured), prepared)


_Key = tuple[str, str, int]
_plans: weakref.WeakKeyDictionary[SparseMatrix, dict[_Key, Plan]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def cached_plan(op: str, a: SparseMatrix, n: int, kernel: str) -> Plan:
    """The plan of an earlier call with this very matrix, or a new one kept as long as the matrix lives.

    Chosen anew for each operation and each power of two of `n` up to 256; a named kernel has one plan for all sizes.
    Plans that end at the same kernel share the packed matrix.
    """
    size = 1 if kernel != "auto" else min(256, 1 << max(0, n - 1).bit_length())
    key = (op, kernel, size)
    with _lock:
        found = _plans.get(a, {}).get(key)
    if found is None:
        found = plan(op, a, n=1 if op == "spmv" else max(1, min(n, 256)), kernel=kernel)
        with _lock:
            plans = _plans.setdefault(a, {})
            packed = next((other.prepared for other in plans.values() if other.kernel == found.kernel), found.prepared)
            found = plans[key] = replace(found, prepared=packed)
    return found
