"""What SDDMM and masked softmax mean, in float64 and without speed: the definitions that kernels are compared with.

Values are in the order of `pattern.data.ravel()`. A row without entries has no values. An element of an operand that
no entry touches does not matter, even if it is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..formats import SparseMatrix

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_CHUNK_ELEMS = 1 << 17  # what L2 holds: larger ones take twice to three times as long


def places(pattern: SparseMatrix) -> tuple[Int64, Int64]:
    """Row and column of each entry, in the order of `pattern.data.ravel()`."""
    rows, cols = (np.broadcast_to(index, pattern.data.shape).ravel() for index in pattern.places())
    return rows.astype(np.int64), cols.astype(np.int64)


def sddmm(
    pattern: SparseMatrix, a: Any, b: Any, *, scale_values: bool = False, alpha: float = 1.0, absolute: bool = False
) -> Float64:
    """alpha * sum over k of a[..., i, k] b[..., k, j] for each entry: (..., nnz); with `absolute`, of magnitudes."""
    left, right = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64).swapaxes(-1, -2)
    values = pattern.decoded().reshape(-1).astype(np.float64) if scale_values else np.ones(pattern.nnz)
    factor = np.float64(alpha)
    if absolute:
        left, right, values, factor = np.abs(left), np.abs(right), np.abs(values), np.abs(factor)
    batch = np.broadcast_shapes(left.shape[:-2], right.shape[:-2])
    rows, cols = places(pattern)
    found = np.zeros((*batch, pattern.nnz))
    step = max(1, _CHUNK_ELEMS // max(1, left.shape[-1] * int(np.prod(batch))))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, rows.size, step):
            part = slice(start, start + step)
            found[..., part] = (left[..., rows[part], :] * right[..., cols[part], :]).sum(axis=-1)
        return np.asarray(found * factor * values)


def row_sums(pattern: SparseMatrix, values: Float64) -> Float64:
    """The sum of each entry's row, at each entry: (..., nnz)."""
    rows, _ = places(pattern)
    flat = values.reshape(int(np.prod(values.shape[:-1])), values.shape[-1])
    with np.errstate(invalid="ignore"):
        found = [np.bincount(rows, weights=line, minlength=pattern.shape[0])[rows] for line in flat]
    return np.asarray(found, dtype=np.float64).reshape(values.shape)


def masked_softmax(pattern: SparseMatrix, scores: Any, *, scale: float = 1.0, bias: Any = None) -> Float64:
    """Softmax of scale * scores + bias over each row's entries: (..., nnz). A row that is -inf throughout gives 0."""
    given = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        exponents = given * scale + (0.0 if bias is None else np.asarray(bias, dtype=np.float64))
        weights = np.exp(exponents - largest(pattern, exponents))
        sums = row_sums(pattern, weights)
        return weights / np.where(sums == 0.0, 1.0, sums)


def largest(pattern: SparseMatrix, exponents: Float64) -> Float64:
    """The largest exponent of each entry's row that is not NaN; 0 where all are -inf."""
    rows, _ = places(pattern)
    most = np.full((*exponents.shape[:-1], pattern.shape[0]), -np.inf)
    numbers = np.where(np.isnan(exponents), -np.inf, exponents)
    for line in np.ndindex(*exponents.shape[:-1]):
        np.maximum.at(most[line], rows, numbers[line])
    return np.asarray(np.where(most == -np.inf, 0.0, most)[..., rows])
