"""Random sparse inputs, each from a seed, and buffers that show a write outside their bounds."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..formats import CSR, INTEGERS, SparseMatrix, registry
from ..quantize import quantize

Float32 = npt.NDArray[np.float32]

_GUARD_ELEMS = 64
_GUARD = np.float32(-1234.5)


def random_dense(shape: tuple[int, ...], sparsity: float = 0.0, seed: int = 0) -> Float32:
    """Standard normal values, each zero with probability `sparsity`."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape, dtype=np.float32)
    values[rng.random(shape, dtype=np.float32) < sparsity] = 0.0
    return values


def random_nm(shape: tuple[int, int], n: int, m: int, seed: int = 0) -> Float32:
    """Standard normal values, n of each m neighbours along K kept at random places."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((shape[0], shape[1] // m, m), dtype=np.float32)
    rank = rng.random(values.shape).argsort(axis=2).argsort(axis=2)
    return np.ascontiguousarray(np.where(rank < n, values, np.float32(0)).reshape(shape))


def random_vnm(shape: tuple[int, int], v: int, n: int, m: int, seed: int = 0) -> Float32:
    """Standard normal values; in blocks of v rows and m columns 4 columns at random places, n of the 4 in each row."""
    rng = np.random.default_rng(seed)
    rows, groups = shape[0], shape[1] // m
    rank = rng.random((rows // v, groups, m)).argsort(axis=2).argsort(axis=2)
    columns = (rank < 4).repeat(v, axis=0)
    chance = np.where(columns, rng.random(columns.shape), 2.0)
    kept = columns & (chance.argsort(axis=2).argsort(axis=2) < n)
    values = rng.standard_normal(kept.shape, dtype=np.float32)
    return np.ascontiguousarray(np.where(kept, values, np.float32(0)).reshape(shape))


def random_matrix(
    shape: tuple[int, int],
    sparsity: float,
    seed: int = 0,
    *,
    format: str = "csr",
    dtype: str = "float32",
    group: int = 0,
    symmetric: bool = True,
    **params: Any,
) -> SparseMatrix:
    """A random matrix in any format. Blocks are kept or left whole; N:M and V:N:M themselves decide the sparsity.

    Args:
        group: As in `quantize`, for int8 and int4.
        symmetric: As in `quantize`.
    """
    if format == "nm":
        dense = random_nm(shape, params["n"], params["m"], seed)
    elif format == "vnm":
        dense = random_vnm(shape, params["v"], params["n"], params["m"], seed)
    elif format == "bsr":
        r, c = params["block"]
        kept = np.random.default_rng(seed + 1).random((shape[0] // r, shape[1] // c)) >= sparsity
        dense = random_dense(shape, 0.0, seed) * np.kron(kept, np.ones((r, c), dtype=np.float32))
    else:
        dense = random_dense(shape, sparsity, seed)
    cls: type[SparseMatrix] = registry.get(format) if format != "dense" else CSR
    return with_values(cls.from_dense(dense, **params), dtype, group=group, symmetric=symmetric)


def with_values(a: SparseMatrix, dtype: str, *, group: int = 0, symmetric: bool = True) -> SparseMatrix:
    """`a` with its values in any value type: rounded to a floating one, or quantised."""
    return quantize(a, dtype, group=group, symmetric=symmetric) if dtype in INTEGERS else a.astype(dtype)


class Guarded(NamedTuple):
    """`array` lies inside `buffer`; the elements around it are guards."""

    array: Float32
    buffer: Float32

    def intact(self) -> bool:
        """Whether nothing was written around the array."""
        size = self.array.size
        start = (self.array.ctypes.data - self.buffer.ctypes.data) // self.buffer.itemsize
        around = np.concatenate((self.buffer[:start], self.buffer[start + size :]))
        return bool((around == _GUARD).all())


def guarded(shape: tuple[int, ...], *, shift: int = 0) -> Guarded:
    """An array full of NaN with guards around it, starting `shift` elements away from alignment to 64 bytes."""
    size = int(np.prod(shape))
    buffer = np.full(size + 2 * _GUARD_ELEMS + 16, _GUARD, dtype=np.float32)
    aligned = (-(buffer.ctypes.data // 4)) % 16
    start = _GUARD_ELEMS // 2 + aligned + shift
    array = buffer[start : start + size]
    array[...] = np.nan
    return Guarded(array.reshape(shape), buffer)
