"""What a machine can do at most, and what the harness costs: measured once a process, in every row of its run."""

from __future__ import annotations

import time
from functools import cache
from typing import Any

from .. import kernels
from ..kernels import newest
from . import machine
from .analysis.roofline import measure_roofline
from .timer import Candidate, interleave

_EMPTY_S = 0.02


@cache
def fields(threads: int) -> dict[str, Any]:
    """Fields that all rows of a run share: peaks with so many threads, the last cache, the cost of an empty call.

    Takes about two seconds the first time.
    """
    dense = (kernel for kernel in kernels.registry if kernel.op == "spmm" and kernel.format == "dense")
    ours = newest(k for k in dense if k.origin == "native" and k.dtype == "float32" and k.why_not() is None)
    found = measure_roofline(ours[0].name)
    return {
        "peak_gflops": 2 * found.macs_per_s / 1e9,
        "bandwidth": found.read_bytes_per_s / 1e9,
        "llc": machine.claimed_cache_bytes() or machine.last_level_cache_bytes(),
        "overhead_s": overhead_s(),
    }


@cache
def device_fields() -> dict[str, Any]:
    """The same of the CUDA device, beside what it is called; nothing where there is none."""
    from ..kernels.peers import cuda

    if cuda.no_gpu():
        return {}
    found = cuda.measure_limits()
    samples = interleave([Candidate("nothing", [_nothing], clock=cuda.seconds)], budget_s=_EMPTY_S, rounds=1)[0]
    return {
        "peak_gflops": found.flops_per_s / 1e9,
        "bandwidth": found.bytes_per_s / 1e9,
        "llc": found.l2_bytes,
        "overhead_s": max(samples.median_s, 1e-9),
        "machine": {**machine.machine(), "gpu": found.name},
    }


def overhead_s() -> float:
    """Median time of a call that does nothing, as `interleave` takes it."""
    samples = interleave([Candidate("nothing", [_nothing])], budget_s=_EMPTY_S, rounds=1)[0]
    return max(samples.median_s, time.get_clock_info("perf_counter").resolution)


def _nothing() -> None:
    pass
