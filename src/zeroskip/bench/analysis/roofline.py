"""What this machine can do at most: bytes read from memory a second, and float32 multiply-adds a second.

Both are the best of several runs of the fastest code at hand, on as many threads as the kernels get. Reading: the dense
matrix-vector products of NumPy and of zeroskip, over weights that no cache holds. Multiply-adds: the dense products of
both, of matrices that fit the caches.

How large the last cache is, is measured too. Virtual machines say anything: one Zen 3 reported 32 MiB and read 64 and
128 MiB again and again at 58 GB/s, 512 MiB at 34 (2026-11). Weights would be called cold there and lie in a cache.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...formats import DenseMatrix
from ...runtime.packing import pack
from .. import machine

_REPEATS = 5
_LARGEST_BYTES = 512 * 2**20
# Of memory that is read at more than this multiple of the rate of the largest array, a good part lies in a cache.
_FROM_CACHE = 1.25
_COLUMNS = 4096
_SIZE, _VECTORS = 1024, 512


@dataclass(frozen=True)
class Roofline:
    """Peaks, which code reached them, and the size of the last cache.

    Attributes:
        cache_bytes: What the system says, or what was found to be read as fast as from a cache if that is more.
        cold_bytes: Memory to walk over so that nothing of what was there before is in a cache.
    """

    read_bytes_per_s: float
    read_by: str
    macs_per_s: float
    macs_by: str
    cache_bytes: int
    cold_bytes: int

    def seconds(self, nbytes: float, macs: float) -> float:
        """The least time that moving so many bytes and doing so many multiply-adds takes."""
        return max(nbytes / self.read_bytes_per_s, macs / self.macs_per_s)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def measure_roofline(dense_kernel: str) -> Roofline:
    """Measure both peaks and the cache; one or two seconds.

    Args:
        dense_kernel: Our float32 dense kernel.
    """
    largest = min(_LARGEST_BYTES, (machine.memory_bytes() or _LARGEST_BYTES * 8) // 8)
    weights = np.ones((max(8, largest // (4 * _COLUMNS)), _COLUMNS), dtype=np.float32)
    sizes = [weights.nbytes >> shift for shift in range(4)]
    rates = {size: size / _gemv_s(weights[: size // (4 * _COLUMNS)]) for size in sizes}
    cached = [size for size in sizes[1:] if rates[size] > _FROM_CACHE * rates[weights.nbytes]]
    cache_bytes = max(machine.last_level_cache_bytes(), *cached, 0)
    reads = {
        "numpy.matmul": rates[weights.nbytes],
        dense_kernel: _kernel_read(dense_kernel, weights[: len(weights) // 2]),
    }
    macs = {dense_kernel: _kernel_macs(dense_kernel), "numpy.matmul": _numpy_macs()}
    read_by, macs_by = max(reads, key=lambda name: reads[name]), max(macs, key=lambda name: macs[name])
    cold = min(max(cache_bytes * 3 // 2, 2 * max(cached, default=0)), weights.nbytes)
    return Roofline(reads[read_by], read_by, macs[macs_by], macs_by, cache_bytes, cold)


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
