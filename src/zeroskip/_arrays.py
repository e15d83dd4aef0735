"""Memory that begins at a cache line."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

LINE_BYTES = 64


def empty_lines(shape: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """An uninitialised float32 array that begins at a line of the caches, where NumPy's begin anywhere.

    Kernels write results that are larger than the caches past them, whole lines at a time, if lines are theirs.
    """
    size, line = math.prod(shape), LINE_BYTES // 4
    buffer = np.empty(size + line, dtype=np.float32)
    start = -(buffer.ctypes.data // 4) % line
    return buffer[start : start + size].reshape(shape)


def copied_to_lines(array: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A contiguous float32 copy that begins at a line, as tensors of torch do."""
    found = empty_lines(array.shape)
    found[...] = array
    return found
