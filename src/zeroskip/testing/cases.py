"""The matrices that every kernel meets, whatever its format. Add one here and every kernel is tested with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import BSR, CSR, SparseMatrix
from .inputs import random_dense, random_matrix, with_values

# The formats that a kernel may ask for and take nothing else; all other kernels get the same matrices, in CSR.
OWN_FORMAT = ("bsr", "nm", "vnm", "ell", "sell", "csc", "dia")

Float32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Case:
    """A named matrix.

    Attributes:
        name: What is special about it.
        dense: Makes its elements.
        index_dtype: Index type of the CSR, where it is not the narrowest.
        stored_zeros: Whether some stored entries are zero.
        special_x: Whether x holds NaN and infinities.
        max_n: The largest N worth the time.
    """

    name: str
    dense: Callable[[], Float32]
    index_dtype: str | None = None
    stored_zeros: bool = False
    special_x: bool = False
    max_n: int | None = None

    def matrix(self, format: str, dtype: str = "float32", *, group: int = 0, symmetric: bool = True) -> SparseMatrix:
        """The case for a kernel that multiplies from `format`.

        CSR, unless the kernel takes nothing but its own format: BSR keeps whole blocks where the case has entries, N:M
        and V:N:M have their own random pattern, and all three are rounded up to sizes that their pattern divides. The
        others of `OWN_FORMAT` hold the case as it is.

        Args:
            format: The kernel's format.
            dtype: Value type.
            group: As in `quantize`, for int8 and int4.
            symmetric: As in `quantize`.
        """
        return with_values(self._floats(format), dtype, group=group, symmetric=symmetric)

    def _floats(self, format: str) -> SparseMatrix:
        dense = self.dense()
        if format == "bsr":
            return _blocks(dense, (16, 1) if dense.shape[0] % 2 else (4, 4))
        if format == "nm":
            n, m = (2, 4) if dense.shape[0] % 2 else (8, 16)
            shape = (dense.shape[0], -(-dense.shape[1] // m) * m)
            return random_matrix(shape, 0.5, seed=shape[1], format="nm", n=n, m=m)
        if format == "vnm":
            v, n, m = (1, 1, 4) if dense.shape[0] % 2 else (4, 2, 8)
            shape = (-(-dense.shape[0] // v) * v, -(-dense.shape[1] // m) * m)
            return random_matrix(shape, 0.5, seed=shape[1], format="vnm", v=v, n=n, m=m)
        csr = CSR.from_dense(dense)
        indices = csr.indices if self.index_dtype is None else csr.indices.astype(self.index_dtype)
        data = csr.data.copy()
        if self.stored_zeros:
            data[::3] = 0.0
        a = CSR(csr.shape, csr.indptr, indices, data)
        return self._as_it_is(a, format) if format in OWN_FORMAT else a

    def _as_it_is(self, a: CSR, format: str) -> SparseMatrix:
        """All entries of `a` in another format, with the index type of the case."""
        params = {"c": 4, "sigma": 16 if a.shape[0] % 2 else 1} if format == "sell" else {}
        found: Any = a.convert(format, **params)
        if self.index_dtype is None or format == "dia":
            return found  # type: ignore[no-any-return]
        return replace(found, indices=found.indices.astype(self.index_dtype))  # type: ignore[no-any-return]

    def x(self, columns: int, n: int) -> Float32:
        """The right-hand side (columns, n): standard normal, and NaN and infinities here and there if `special_x`."""
        x = random_dense((columns, n), 0.0, seed=columns + 1)
        if self.special_x:
            x[3 % columns, ::2] = np.nan
            x[7 % columns, ::3] = np.inf
            x[columns - 1, ::5] = -np.inf
        return x


def _blocks(dense: Float32, block: tuple[int, int]) -> SparseMatrix:
    """BSR of random values, a block kept where its first element in `dense` is not zero."""
    r, c = block
    kept = dense[::r, ::c] != 0
    grid = np.kron(kept, np.ones(block, dtype=np.float32))
    return BSR.from_dense(random_dense(grid.shape, 0.0, seed=grid.shape[1]) * grid, block=block)


def _random(rows: int, columns: int, sparsity: float) -> Callable[[], Float32]:
    return lambda: random_dense((rows, columns), sparsity, seed=rows * 7919 + columns)


def _empty_rows() -> Float32:
    dense = random_dense((65, 70), 0.6, seed=1)
    dense[[0, 1, 30, 31, 32, 33, 64]] = 0.0
    return dense


def _one_dense_row() -> Float32:
    dense = random_dense((41, 300), 0.98, seed=2)
    dense[17] = random_dense((300,), 0.0, seed=3)
    return dense


def _one_dense_column() -> Float32:
    dense = random_dense((130, 50), 0.98, seed=4)
    dense[:, 49] = random_dense((130,), 0.0, seed=5)
    return dense


def _wide_range() -> Float32:
    dense = random_dense((50, 120), 0.5, seed=6)
    scale = 10.0 ** np.random.default_rng(7).integers(-4, 4, dense.shape)
    return (dense * scale).astype(np.float32)


CASES = (
    Case("no entries", lambda: np.zeros((33, 40), dtype=np.float32)),
    Case("empty rows", _empty_rows),
    Case("one dense row", _one_dense_row),
    Case("one dense column", _one_dense_column),
    Case("one element", lambda: np.full((1, 1), 0.75, dtype=np.float32)),
    Case("one row", _random(1, 130, 0.5)),
    Case("one column", _random(70, 1, 0.5)),
    Case("every element", _random(48, 64, 0.0)),
    *(Case(f"{m}x{k}", _random(m, k, 0.7)) for m, k in ((3, 7), (8, 8), (9, 15), (31, 95), (32, 96), (33, 97))),
    *(Case(f"{m}x{k}", _random(m, k, 0.8)) for m, k in ((63, 255), (64, 256), (65, 257))),
    Case("very sparse", _random(130, 300, 0.98)),
    Case("long rows", _random(20, 1100, 0.9)),
    Case("tall", _random(515, 24, 0.7)),
    Case("more than 65536 columns", _random(3, 70001, 0.999), max_n=9),
    Case("int32 indices", _random(40, 50, 0.6), index_dtype="int32"),
    Case("int64 indices", _random(40, 50, 0.6), index_dtype="int64"),
    Case("stored zeros", _random(40, 56, 0.6), stored_zeros=True),
    Case("values of all sizes", _wide_range),
    Case("NaN and Inf in x", _random(35, 60, 0.8), special_x=True),
)
