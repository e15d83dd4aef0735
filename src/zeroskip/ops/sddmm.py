"""SDDMM: S[i, j] = alpha * sum over k of A[i, k] B[k, j], for the entries (i, j) of a pattern and nothing else.

A kernel's function (`kernels.operations`) is called as `function(pattern, a, b, out, values, alpha)` and trusts it:
a is (..., M, K) and b (..., N, K), rows of B's transpose, with equal leading sizes; both of the kernel's value type
(bfloat16 as uint16) with contiguous rows and any other strides. out is (..., nnz), float32 and contiguous, every
element to be written. values is float32 (nnz,) or None. Entries are in the order of `pattern.data`. It is not called
where there is no batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ShapeError
from ..formats import SparseMatrix
from ..formats._dtypes import Array
from ._operands import (
    check_number,
    check_pattern,
    dense_operand,
    find_kernel,
    rows_in_place,
    same_kind,
    widened,
    with_values,
)


def sddmm(
    pattern: SparseMatrix,
    a: Any,
    b: Any,
    *,
    scale_values: bool = False,
    alpha: float = 1.0,
    values_only: bool = False,
    kernel: str = "auto",
) -> Any:
    """Multiply two dense matrices at the entries of a pattern only (SDDMM): S = alpha * (A @ B) where pattern stores.

    An entry is what the pattern stores, whatever its value: an explicit zero, and the padding of a BSR block, too.

    Args:
        pattern: Sparse, (M, N). CSR, BSR and bitmask are read as they are; other formats are converted to CSR first,
            and those that pad (ELL, SELL, DIA, N:M) lose stored zeros by it.
        a: Dense, (..., M, K), float32, bfloat16 or float16; NumPy, torch on the CPU or DLPack. Leading sizes (batches,
            heads) share the pattern, and broadcast against those of b.
        b: Dense, (..., K, N), like a. Read in place where its columns are contiguous, as in `k.transpose(-1, -2)` of
            a contiguous (..., N, K); a contiguous (..., K, N) is copied transposed, once a call.
        scale_values: Multiply by the pattern's values, as a product with a sparse matrix of weights does.
        alpha: A factor of all results.
        values_only: Return an array of values for two-dimensional operands as well.
        kernel: A name from `zeroskip list kernels`, or "auto".
    Returns:
        For two-dimensional a and b a matrix of the pattern's format and layout that holds S. With leading sizes, or
        with `values_only`, the values alone: (..., nnz), of the kind of `a`, in the order of `pattern.data.ravel()`,
        which for BSR is block by block. Always float32, accumulated in float32.
    Raises:
        ShapeError: If shapes of pattern, a and b do not fit each other.
        DtypeError: If a or b are not of these types.
        KernelUnavailable: If the named kernel cannot run here or is for another format or type; says why.
    """
    found = check_pattern("sddmm", pattern)
    factor = check_number("sddmm", "alpha", alpha)
    (left, a_dtype), (right, b_dtype) = dense_operand("sddmm", "a", a), dense_operand("sddmm", "b", b)
    batch = _check_shapes(found.shape, left.shape, right.shape)
    dtype = a_dtype if a_dtype == b_dtype else "float32"
    if dtype == "float32":
        left, right = widened(left, a_dtype), widened(right, b_dtype)
    chosen = find_kernel("sddmm", found.name, dtype, kernel)
    out = np.empty((*batch, found.nnz), dtype=np.float32)
    values = found.decoded().reshape(-1) if scale_values else None
    if out.size:
        chosen.function(found, _leading(left, batch), _leading(right.swapaxes(-1, -2), batch), out, values, factor)
    return same_kind(out, a) if batch or values_only or left.ndim > 2 else with_values(found, out)


def _leading(array: Array, batch: tuple[int, ...]) -> Array:
    """`array` with contiguous rows and the leading sizes `batch`."""
    rows = rows_in_place(array)
    return rows if rows.shape[:-2] == batch else np.broadcast_to(rows, (*batch, *rows.shape[-2:]))


def _check_shapes(pattern: tuple[int, int], a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    """The leading sizes of a and b together."""
    m, n = pattern
    if len(a) < 2 or a[-2] != m:
        raise ShapeError(f"sddmm: a has shape {a} but the pattern has M = {m} rows; pass a of shape (..., {m}, K).")
    if len(b) < 2 or b[-1] != n:
        mend = f"pass b of shape (..., K, {n})"
        if len(b) >= 2 and b[-2] == n:
            mend += ", for example b.swapaxes(-1, -2)"
        raise ShapeError(f"sddmm: b has shape {b} but the pattern has N = {n} columns; {mend}.")
    if a[-1] != b[-2]:
        raise ShapeError(f"sddmm: a has shape {a} and b {b}, their K differ ({a[-1]} and {b[-2]}); pass equal ones.")
    if a[:-2] == b[:-2]:
        return a[:-2]
    try:
        return tuple(np.broadcast_shapes(a[:-2], b[:-2]))
    except ValueError:
        raise ShapeError(
            f"sddmm: a has shape {a} and b {b}, whose leading sizes {a[:-2]} and {b[:-2]} do not broadcast; "
            "pass equal ones, or 1."
        ) from None
