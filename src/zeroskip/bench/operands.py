"""Operands of one benchmark problem, and what the product of them must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .._arrays import copied_to_lines
from .._errors import InvalidArgument
from ..datasets import drawn_values
from ..formats import BSR, CSR, NM, VNM, SparseMatrix
from ..ops import reference
from ..sparsify import Pattern
from ..testing import Bound, bound, random_vnm, with_values

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

# A matrix of more elements than this is not laid out in full: no dense rival, and a slower check. 1 GiB in float64.
DENSE_ELEMS = 2**27


class Source(Protocol):
    """Where the matrix of a problem comes from."""

    def check(self) -> None:
        """Refuse, before anything is measured, what `matrix` would refuse."""

    def matrix(self) -> SparseMatrix:
        """The matrix, the same at each call."""

    def fields(self, a: SparseMatrix) -> dict[str, Any]:
        """What a row says of it."""


@dataclass(frozen=True)
class Problem:
    """A random matrix: its shape, where its entries may be, and how many there are. The seed decides the rest.

    Args:
        group: Columns that share a scale, for int8 and int4; 0 for the whole row.
    """

    shape: tuple[int, int]
    sparsity: float
    pattern: str
    dtype: str
    seed: int
    group: int = 0

    def check(self) -> None:
        """Refuse a pattern that does not fit the shape.

        Raises:
            ShapeError: If it does not divide the matrix.
            InvalidArgument: If nothing would be left of the matrix.
        """
        Pattern.parse(self.pattern).check_shape(self.shape, where="bench")
        if self.kept_units() < 1:
            raise InvalidArgument(
                f"bench: sparsity is {self.sparsity:g}, which leaves nothing of {self.shape}; choose a lower one."
            )

    def kept_units(self) -> int:
        """How many entries, or blocks, are kept."""
        parsed = Pattern.parse(self.pattern)
        unit = parsed.rows * parsed.cols if parsed.kind == "block" else 1
        return round((1 - self.sparsity) * self.shape[0] * self.shape[1] / unit)

    def matrix(self) -> SparseMatrix:
        """The matrix in the format that its pattern is stored in: CSR, N:M or BSR."""
        parsed = Pattern.parse(self.pattern)
        random = np.random.default_rng([self.seed, *self.shape, round(self.sparsity * 1e6)])
        keep = _mask(random, self.shape, parsed, self.kept_units())
        dense = np.zeros(self.shape, dtype=np.float32)
        dense[keep] = drawn_values(random, int(keep.sum()))
        params: dict[str, Any] = {}
        cls: type[SparseMatrix] = CSR
        if parsed.kind == "nm":
            cls, params = NM, {"n": parsed.n, "m": parsed.m}
        elif parsed.kind == "vnm":
            cls, params = VNM, {"v": parsed.v, "n": parsed.n, "m": parsed.m}
        elif parsed.kind == "block":
            cls, params = BSR, {"block": (parsed.rows, parsed.cols)}
        return with_values(cls.from_dense(dense, **params), self.dtype, group=self.group)

    def fields(self, a: SparseMatrix) -> dict[str, Any]:
        """Pattern and sparsity as they were asked for."""
        return {"pattern": self.pattern, "sparsity": self.sparsity}


def vectors(seed: int, columns: int, n: int) -> Float32:
    """B (columns, n), standard normal; it begins at a cache line, as tensors of torch do."""
    return copied_to_lines(np.random.default_rng([seed, columns, n]).standard_normal((columns, n), dtype=np.float32))


class Expected:
    """What kernels must give for one matrix: products in float64, and the bounds that `testing.bounds` derives.

    The matrix is laid out in full once: the same sums as those over stored entries where x is finite, and a hundred
    times faster at these sizes. One that is too large for that goes to SciPy where it is installed, ten times faster.
    """

    def __init__(self, a: SparseMatrix) -> None:
        self._a = a
        fits = a.shape[0] * a.shape[1] <= DENSE_ELEMS
        self._dense = a.to_dense().astype(np.float64) if fits else None

    def bound(self, b: Float32, **rounding: str) -> Bound:
        """Of A @ b; for kernels that round b, of A and the rounded b. `rounding` as `testing.sums_of` has it.

        A rival that rounds the product rounds A as well, whatever type that has.
        """
        narrow = rounding.get("sum_dtype", self._a.dtype)
        if narrow == "bfloat16" != self._a.dtype:
            return Expected(self._a.astype(narrow)).bound(b, **rounding)
        return bound(self._a, b, rounded_x=True, multiply=self._multiply, **rounding)

    def _multiply(self, a: SparseMatrix, x: Any, *, absolute: bool = False) -> Float64:
        right = np.asarray(x, dtype=np.float64)
        if self._dense is None:
            return _sparse_product(a, right, absolute=absolute)
        product: Float64 = np.abs(self._dense) @ np.abs(right) if absolute else self._dense @ right
        return product


def _sparse_product(a: SparseMatrix, x: Float64, *, absolute: bool) -> Float64:
    try:
        from scipy import sparse
    except ImportError:
        return reference.stored_product(a, x, absolute=absolute)
    found = a.entries()
    weight = sparse.csr_array((a.values(found).astype(np.float64), (found.rows, found.cols)), shape=a.shape)
    product: Float64 = abs(weight) @ np.abs(x) if absolute else weight @ x
    return product


def _mask(random: np.random.Generator, shape: tuple[int, int], parsed: Pattern, kept: int) -> npt.NDArray[np.bool_]:
    """Exactly `kept` entries or blocks anywhere; or N at random places of each group of M."""
    rows, cols = shape
    if parsed.kind == "vnm":
        return random_vnm(shape, parsed.v, parsed.n, parsed.m, seed=int(random.integers(2**31))).astype(np.bool_)
    if parsed.kind == "nm":
        places = random.random((rows * cols // parsed.m, parsed.m), dtype=np.float32).argpartition(parsed.n - 1, axis=1)
        mask = np.zeros((rows * cols // parsed.m, parsed.m), dtype=np.bool_)
        np.put_along_axis(mask, places[:, : parsed.n], True, axis=1)
        return mask.reshape(shape)
    units = (rows // parsed.rows, cols // parsed.cols)
    chosen = np.zeros(units[0] * units[1], dtype=np.bool_)
    chosen[random.choice(chosen.size, kept, replace=False, shuffle=False)] = True
    grid = chosen.reshape(units)
    return np.repeat(np.repeat(grid, parsed.rows, axis=0), parsed.cols, axis=1)
