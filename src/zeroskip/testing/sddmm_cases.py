"""Patterns that the kernels of operations on a pattern are tested with."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import BSR, CSR, SparseMatrix

Mask = npt.NDArray[np.bool_]

BLOCKS = ((1, 1), (4, 4), (16, 1), (1, 12), (3, 20))


def bigbird(n: int, window: int, random: int, most: int) -> Mask:
    """A window, global rows and columns, and random entries: a mask (n, n)."""
    rng = np.random.default_rng(n)
    i = np.arange(n)
    mask: Mask = np.abs(i[:, None] - i) <= window
    mask[:most] = mask[:, :most] = True
    mask[np.repeat(i, random), rng.integers(0, n, n * random)] = True
    return mask


def power_law(rows: int, columns: int, entries: int) -> Mask:
    """Rows and columns drawn with probabilities that fall as 1 / rank: some rows full, many empty."""
    rng = np.random.default_rng(rows)
    chance = [1.0 / np.arange(1, size + 1) for size in (rows, columns)]
    mask = np.zeros((rows, columns), dtype=bool)
    mask[tuple(rng.choice(p.size, entries, p=p / p.sum()) for p in chance)] = True
    return mask


def scattered(rows: int, columns: int, sparsity: float) -> Mask:
    return np.random.default_rng(rows * columns).random((rows, columns)) >= sparsity


def full_row(rows: int, columns: int) -> Mask:
    mask = np.zeros((rows, columns), dtype=bool)
    mask[rows // 2] = True
    return mask


@cache
def masks() -> dict[str, Mask]:
    """Where entries are, by name; for BSR sizes are rounded up to whole blocks."""
    found = {
        "no entries": np.zeros((7, 9), dtype=bool),
        "one entry": np.ones((1, 1), dtype=bool),
        "one full row": full_row(50, 300),
        "one full column": full_row(90, 60).T,
        "all": np.ones((66, 130), dtype=bool),
        "power law": power_law(200, 100, 900),
        "bigbird": bigbird(130, 5, 3, 2),
        "dense enough for chunks": scattered(150, 210, 0.5),
        "wide": scattered(5, 3000, 0.97),
    }
    for size in (7, 8, 9, 15, 16, 17):
        found[f"rows of {size}"] = np.tile(np.arange(40) < size, (3, 1))
    return found


def pattern(name: str, format: str, dtype: str = "float32") -> list[SparseMatrix]:
    """The pattern of a mask in a format, in all its variants: index types for CSR, blocks for BSR."""
    mask = masks()[name]
    values = np.random.default_rng(3).standard_normal(mask.shape).astype(np.float32)
    if format == "bsr":
        return [_blocks(mask, values, block).astype(dtype) for block in BLOCKS]
    csr = CSR.from_dense(np.where(mask, values, np.float32(0.0)), dtype=dtype)
    if format != "csr":
        return [csr.convert(format)]
    types: tuple[Any, ...] = (np.uint16, np.int32, np.int64)
    return [CSR(csr.shape, csr.indptr, csr.indices.astype(t), csr.data, dtype) for t in types]


def _blocks(mask: Mask, values: npt.NDArray[np.float32], block: tuple[int, int]) -> BSR:
    shape = [-(-size // side) * side for size, side in zip(mask.shape, block, strict=True)]
    whole = np.zeros(shape, dtype=np.float32)
    whole[: mask.shape[0], : mask.shape[1]] = np.where(mask, values, 0.0)
    return BSR.from_dense(whole, block=block)
