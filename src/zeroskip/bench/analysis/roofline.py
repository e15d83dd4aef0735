"""What this machine can do at most: bytes read from memory a second, and float32 multiply-adds a second.

Both are the best of several runs of the fastest code at hand, on as many threads as the kernels get. Reading: the dense
matrix-vector products of NumPy and of zeroskip, over weights that no cache holds. Multiply-adds: the dense products of
both, of matrices that fit the caches.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._memory import total_bytes
from ...formats import DenseMatrix
from ...kernels import cpu
from ...runtime.packing import pack
from .. import machine

_REPEATS = 5
_READ_BYTES = 512 * 2**20
_MOST_COLD_BYTES = 256 * 2**20
_COLUMNS = 4096
_SIZE, _VECTORS = 1024, 512


@dataclass(frozen=True)
class Roofline:
    """Peaks, and which code reached them."""

    read_bytes_per_s: float
    read_by: str
    macs_per_s: float
    macs_by: str

    def seconds(self, nbytes: float, macs: float) -> float:
        """The least time that moving so many bytes and doing so many multiply-adds takes."""
        return max(nbytes / self.read_bytes_per_s, macs / self.macs_per_s)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def cold_bytes() -> int:
    """Memory to walk over so that nothing of what was there before is in a cache.

    Half as much again as the last cache, or what the processor calls its cache if that is more: one virtual machine's
    system said 32 MiB, its processor 256, and dense float32 weights of 64 MiB, read again and again, came at up to
    58 GB/s, of 512 MiB at 34 (Zen 3, 2026-11). No more than 256 MiB: a walk there takes 13 ms.
    """
    claimed = int(cpu.cpu_info().get("l3_bytes") or 0)
    return min(max(machine.last_level_cache_bytes() * 3 // 2, claimed), _MOST_COLD_BYTES)


def measure_roofline(dense_kernel: str) -> Roofline:
    """Measure both peaks; about a second.

    Args:
        dense_kernel: Our float32 dense kernel.
    """
    most = (total_bytes() or 8 * _READ_BYTES) // 8
    weights = np.ones((max(8, min(_READ_BYTES, most) // (4 * _COLUMNS)), _COLUMNS), dtype=np.float32)
    reads = {"numpy.matmul": weights.nbytes / _gemv_s(weights)}
    reads[dense_kernel] = _kernel_read(dense_kernel, weights)
    macs = {dense_kernel: _kernel_macs(dense_kernel), "numpy.matmul": _numpy_macs()}
    read_by, macs_by = max(reads, key=lambda name: reads[name]), max(macs, key=lambda name: macs[name])
    return Roofline(reads[read_by], read_by, macs[macs_by], macs_by)


def _best_s(run: Callable[[], object]) -> float:
    run()
    spans = []
    for _ in range(_REPEATS):
        start = time.perf_counter()
        run()
        spans.append(time.perf_counter() - start)
    return min(spans)


def _gemv_s(weights: npt.NDArray[np.float32]) -> float:
    x, out = np.ones(weights.shape[1], dtype=np.float32), np.empty(weights.shape[0], dtype=np.float32)
    return _best_s(lambda: np.matmul(weights, x, out=out))


def _kernel_read(name: str, weights: npt.NDArray[np.float32]) -> float:
    packed = pack(name, DenseMatrix(weights, "float32"))
    x, out = np.ones((weights.shape[1], 1), dtype=np.float32), np.empty((weights.shape[0], 1), dtype=np.float32)
    return packed.nbytes / _best_s(lambda: packed.run(x, out))


def _kernel_macs(name: str) -> float:
    packed = pack(name, DenseMatrix(np.ones((_SIZE, _SIZE), dtype=np.float32), "float32"))
    x, out = (np.ones((_SIZE, _VECTORS), dtype=np.float32) for _ in range(2))
    return _SIZE * _SIZE * _VECTORS / _best_s(lambda: packed.run(x, out))


def _numpy_macs() -> float:
    a, b = np.ones((_SIZE, _SIZE), dtype=np.float32), np.ones((_SIZE, _VECTORS), dtype=np.float32)
    out = np.empty((_SIZE, _VECTORS), dtype=np.float32)
    return _SIZE * _SIZE * _VECTORS / _best_s(lambda: np.matmul(a, b, out=out))
