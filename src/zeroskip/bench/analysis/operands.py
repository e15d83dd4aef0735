"""Random matrices of one shape, made straight in the format that is measured: nothing dense in between, nothing sorted.

The places of the entries and their values decide neither arithmetic nor bytes, so values come out of one pool, and the
codes of a quantised matrix are drawn instead of rounded from numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument
from ...formats import BSR, CODES, CSR, INTEGERS, NM, Bitmask, DenseMatrix, Scales, SparseMatrix, grid_shape, to_bits
from ...runtime.values import GROUPS

Float32 = npt.NDArray[np.float32]
Array = npt.NDArray[Any]

_LEVELS = 1 << 16
_PERMUTATIONS = 4096


@dataclass(frozen=True)
class Form:
    """A storage format with its parameters, as `--formats` spells it: csr, bitmask, nm, nm:8, bsr, bsr:4x4.

    Attributes:
        format: csr, bitmask, nm or bsr.
        rows, cols: The block of bsr; `cols` is M of nm. 1 x 1 where any entry may be zero.
    """

    format: str
    rows: int = 1
    cols: int = 1

    @classmethod
    def parse(cls, text: str) -> Form:
        """The form that is spelled `text`.

        Raises:
            InvalidArgument: If there is none.
        """
        spelled = str(text).strip().lower()
        if spelled in ("csr", "bitmask"):
            return cls(spelled)
        if found := re.fullmatch(r"nm(?::(\d+))?", spelled):
            group = int(found[1] or 16)
            if 2 <= group <= 256:
                return cls("nm", 1, group)
        if found := re.fullmatch(r"bsr(?::(\d+)x(\d+))?", spelled):
            rows, cols = int(found[1] or 16), int(found[2] or 1)
            if rows > 0 and cols > 0:
                return cls("bsr", rows, cols)
        raise InvalidArgument(
            f"analyze: format {text!r} is not known; choose of csr, bitmask, nm (or nm:M), bsr (or bsr:RxC)."
        )

    @property
    def pattern(self) -> str:
        """Where zeros may be: forms of one pattern are measured on the same matrix."""
        if self.format == "nm":
            return f"N:{self.cols}"
        return f"block:{self.rows}x{self.cols}" if self.format == "bsr" else "unstructured"

    def __str__(self) -> str:
        if self.format == "nm":
            return f"nm:{self.cols}"
        return f"bsr:{self.rows}x{self.cols}" if self.format == "bsr" else self.format

    def fits(self, shape: tuple[int, int]) -> str | None:
        """Why a matrix of this shape cannot have the form; None where it can."""
        if shape[0] % self.rows or shape[1] % self.cols:
            return f"{shape[0]}x{shape[1]} is not divided by {self.pattern}"
        return None

    def sparsities(self, wanted: float) -> tuple[float, ...]:
        """The sparsity itself, or for N:M the nearest on each side that the pattern has."""
        if self.format != "nm":
            return (wanted,)
        kept = (1 - wanted) * self.cols
        near = {round(kept)} if abs(kept - round(kept)) < 1e-6 else {int(kept), int(kept) + 1}
        return tuple(sorted(1 - n / self.cols for n in near if 0 < n < self.cols))


class Operands:
    """Everything random of one shape: matrices, dense weights and x."""

    def __init__(self, shape: tuple[int, int], columns: int, seed: int) -> None:
        self.shape = shape
        self._random = np.random.default_rng([seed, *shape])
        values = self._random.standard_normal(shape, dtype=np.float32)
        self._pool: Float32 = np.copysign(np.maximum(np.abs(values), np.float32(1e-3)), values)
        self._x = self._random.standard_normal((shape[1], columns), dtype=np.float32)

    def x(self, n: int) -> Float32:
        """(K, n): of every n the first columns are the same."""
        return np.ascontiguousarray(self._x[:, :n])

    def dense(self, dtype: str) -> DenseMatrix:
        """All entries."""
        return DenseMatrix(self._values(self._pool.size, dtype).reshape(self.shape), dtype, self._scales(dtype))

    def full(self, dtype: str) -> NM:
        """All entries, as a sparse matrix that stores each: groups of a whole row, or what divides it."""
        (rows, columns), whole = self.shape, self.dense(dtype)
        group = next(size for size in range(min(256, columns), 0, -1) if columns % size == 0)
        shape = (rows, columns // group, group)
        places = np.broadcast_to(np.arange(group, dtype=np.uint8), shape)
        return NM(
            self.shape, group, group, whole.data.reshape(shape), np.ascontiguousarray(places), dtype, whole.scales
        )

    def matrices(self, forms: list[Form], sparsity: float) -> Pattern:
        """The places of the entries, for forms of one pattern."""
        return Pattern(self, forms[0], sparsity)

    @cached_property
    def levels(self) -> npt.NDArray[np.uint16]:
        """A number for each element; a pattern keeps those above its sparsity."""
        return self._random.integers(0, _LEVELS, self.shape, dtype=np.uint16)

    def random(self) -> np.random.Generator:
        return self._random

    def _values(self, count: int, dtype: str) -> Array:
        if dtype in INTEGERS:
            return self._codes[dtype][:count]
        return to_bits(self._pool.reshape(-1)[:count], dtype)

    @cached_property
    def _codes(self) -> dict[str, npt.NDArray[np.int8]]:
        found = {}
        for dtype in INTEGERS:
            high = CODES[dtype][1]
            codes = self._random.integers(1, high + 1, self._pool.size, dtype=np.int8)
            found[dtype] = np.where(self._pool.reshape(-1) < 0, -codes, codes)
        return found

    def _scales(self, dtype: str) -> Scales | None:
        return self._drawn_scales.get(dtype)

    @cached_property
    def _drawn_scales(self) -> dict[str, Scales]:
        found = {}
        for dtype, group in GROUPS.items():
            values = self._random.uniform(0.005, 0.02, grid_shape(self.shape, group)).astype(np.float16)
            found[dtype] = Scales(values, group)
        return found


class Pattern:
    """Places of entries; `matrix` puts values there."""

    def __init__(self, operands: Operands, form: Form, sparsity: float) -> None:
        self._operands = operands
        self._form = form
        (rows, columns), kept = operands.shape, 1.0 - sparsity
        random = operands.random()
        if form.format == "nm":
            self._n = round(kept * form.cols)
            table = np.argsort(random.random((_PERMUTATIONS, form.cols)), axis=1)[:, : self._n]
            table = np.sort(table, axis=1).astype(np.uint8)
            self._indices = table[random.integers(0, _PERMUTATIONS, (rows, columns // form.cols))]
            return
        levels = operands.levels[: rows // form.rows, : columns // form.cols]
        self._mask = levels >= np.uint16(min(_LEVELS - 1, round(sparsity * _LEVELS)))
        self._mask[0, 0] = True  # never empty

    @cached_property
    def _offsets(self) -> npt.NDArray[np.int64]:
        offsets = np.zeros(self._mask.shape[0] + 1, dtype=np.int64)
        np.cumsum(np.count_nonzero(self._mask, axis=1), out=offsets[1:])
        return offsets

    @cached_property
    def _columns(self) -> npt.NDArray[np.int64]:
        found: npt.NDArray[np.int64] = np.flatnonzero(self._mask) % self._mask.shape[1]
        return found

    def matrix(self, form: Form, dtype: str) -> SparseMatrix:
        """The matrix in a form of this pattern."""
        shape, operands = self._operands.shape, self._operands
        scales = operands._scales(dtype)
        if form.format == "nm":
            data = operands._values(self._indices.size, dtype).reshape(self._indices.shape)
            return NM(shape, self._n, form.cols, data, self._indices, dtype, scales)
        count = int(self._offsets[-1])
        data = operands._values(count * form.rows * form.cols, dtype)
        if form.format == "bsr":
            block, columns = (form.rows, form.cols), self._columns.astype(np.int32)
            return BSR(shape, block, self._offsets, columns, data.reshape(count, *block), dtype, scales)
        if form.format == "bitmask":
            bits = np.packbits(self._mask, axis=1, bitorder="little")
            return Bitmask(shape, bits, data, dtype, scales)
        index = np.uint16 if shape[1] <= 65536 else np.int32
        return CSR(shape, self._offsets, self._columns.astype(index), data, dtype, scales)


def stripe(a: SparseMatrix, start: int, stop: int) -> SparseMatrix:
    """Rows `start` to `stop` of a matrix; of blocks, whole block rows."""
    shape = (stop - start, a.shape[1])
    scales = None if a.scales is None else Scales(a.scales.values[start:stop], a.scales.group)
    if isinstance(a, NM):
        return NM(shape, a.n, a.m, a.data[start:stop], a.indices[start:stop], a.dtype, scales)
    if isinstance(a, BSR):
        first, last = start // a.block[0], stop // a.block[0]
        part = slice(a.indptr[first], a.indptr[last])
        offsets = a.indptr[first : last + 1] - a.indptr[first]
        return BSR(shape, a.block, offsets, a.indices[part], a.data[part], a.dtype, scales)
    assert isinstance(a, CSR | Bitmask)
    offsets = a.indptr
    part = slice(offsets[start], offsets[stop])
    if isinstance(a, Bitmask):
        return Bitmask(shape, a.bits[start:stop], a.data[part], a.dtype, scales)
    return CSR(shape, offsets[start : stop + 1] - offsets[start], a.indices[part], a.data[part], a.dtype, scales)
