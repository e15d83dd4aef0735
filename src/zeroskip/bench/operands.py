"""Random operands of one benchmark problem, and what the product of them must be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from ..formats import BSR, CSR, NM, UNIT_ROUNDOFF, VNM, SparseMatrix
from ..sparsify import Pattern
from ..testing import random_vnm

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A random matrix: its shape, where its entries may be, and how many there are. The seed decides the rest."""

    shape: tuple[int, int]
    sparsity: float
    pattern: str
    dtype: str
    seed: int

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
        dense[keep] = _values(random, int(keep.sum()))
        params: dict[str, Any] = {}
        cls: type[SparseMatrix] = CSR
        if parsed.kind == "nm":
            cls, params = NM, {"n": parsed.n, "m": parsed.m}
        elif parsed.kind == "vnm":
            cls, params = VNM, {"v": parsed.v, "n": parsed.n, "m": parsed.m}
        elif parsed.kind == "block":
            cls, params = BSR, {"block": (parsed.rows, parsed.cols)}
        return cls.from_dense(dense, dtype=self.dtype, **params)

    def vectors(self, n: int) -> Float32:
        """B (k, n)."""
        return np.random.default_rng([self.seed, self.shape[1], n]).standard_normal(
            (self.shape[1], n), dtype=np.float32
        )

    def nnz(self, a: SparseMatrix) -> int:
        """Entries of `a`; the values drawn are never zero, so that nothing stored is padding."""
        return a.nnz

    def reference(self, a: SparseMatrix, b: Float32) -> tuple[Float64, Float64]:
        """The product in float64, and the bound of the error of each element (docs/benchmark.md).

        Dense float64 here instead of `ops.reference`: the same sums, and a hundred times faster at these sizes.
        """
        dense, right = a.to_dense().astype(np.float64), b.astype(np.float64)
        product = dense @ right
        terms = np.count_nonzero(dense, axis=1)[:, None] + 1.0
        roundoff = UNIT_ROUNDOFF["float32"]
        bound = terms * roundoff * (np.abs(dense) @ np.abs(right)) + roundoff * np.abs(product)
        return product, bound


def _mask(random: np.random.Generator, shape: tuple[int, int], parsed: Pattern, kept: int) -> npt.NDArray[np.bool_]:
    """Exactly `kept` entries or blocks anywhere; or N at random places of each group of M."""
    rows, cols = shape
    if parsed.kind == "vnm":
        return random_vnm(shape, parsed.v, parsed.n, parsed.m, seed=int(random.integers(2**31))) != 0
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


def _values(random: np.random.Generator, count: int) -> Float32:
    """Normal values, kept away from zero so that none vanishes when it is rounded to 16 bits."""
    values = random.standard_normal(count, dtype=np.float32)
    kept: Float32 = np.copysign(np.maximum(np.abs(values), np.float32(1e-3)), values)
    return kept
