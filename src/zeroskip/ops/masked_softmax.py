"""Softmax over the entries of each row of a pattern: P[i, j] = e^(s S[i, j] + b[i, j] - m_i) / z_i.

A kernel's function (`kernels.operations`) is called as `function(pattern, scores, out, scale, bias)` and trusts it:
scores and out are (batches, nnz), float32 and contiguous, in the order of `pattern.data`, every element of out to be
written; bias is float32 of the same shape, (1, nnz), or None.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .._errors import ShapeError
from ..formats import SparseMatrix
from ..formats._dtypes import Array
from ._check import as_float32
from ._operands import check_number, check_pattern, find_kernel, same_kind


def masked_softmax(
    pattern: SparseMatrix, scores: Any, *, scale: float = 1.0, bias: Any = None, kernel: str = "auto"
) -> Any:
    """Softmax of scale * scores + bias over each row's entries, as `sddmm` returns them.

    An entry is what the pattern stores: a score of 0 takes part like any other, and what is not stored has no weight. A
    row without entries has no weights. The largest exponent of a row is subtracted first, so that nothing overflows.

    A score of -inf has weight 0; a row of nothing else gives zeros, as a row without entries does (and as torch's
    attention has it; its softmax gives NaN). NaN or +inf in a row makes all of its weights NaN, and no others.

    Args:
        pattern: Sparse, (M, N), of any format, as in `sddmm`; its values do not matter.
        scores: (..., nnz), float32, bfloat16 or float16, in the order of `pattern.data.ravel()`; NumPy, torch on the
            CPU or DLPack. Copied if not contiguous.
        scale: A factor of the scores.
        bias: (..., nnz), added to the scaled scores; its leading sizes broadcast to those of scores.
        kernel: A name from `zeroskip list kernels`, or "auto".
    Returns:
        Weights, (..., nnz), of the kind of `scores`, float32.
    Raises:
        ShapeError: If scores or bias do not have one value for each entry.
        DtypeError: If they are not of these types.
        KernelUnavailable: If the named kernel cannot run here or is for another format; says why.
    """
    found = check_pattern("masked_softmax", pattern)
    factor = check_number("masked_softmax", "scale", scale)
    given = as_float32("masked_softmax", "scores", scores)
    if not given.ndim or given.shape[-1] != found.nnz:
        raise ShapeError(
            f"masked_softmax: scores has shape {given.shape} but the pattern has {found.nnz} entries; "
            f"pass scores of shape (..., {found.nnz}), as sddmm returns with values_only=True."
        )
    added = _check_bias(bias, given.shape)
    chosen = find_kernel("masked_softmax", found.name, "float32", kernel)
    out = np.empty(given.shape, dtype=np.float32)
    batches = out.size // found.nnz if found.nnz else 0
    if out.size:
        chosen.function(found, given.reshape(batches, found.nnz), out.reshape(batches, found.nnz), factor, added)
    return same_kind(out, scores)


def _check_bias(bias: Any, shape: tuple[int, ...]) -> Array | None:
    """bias as (batches, nnz), or (1, nnz) where all batches share it."""
    if bias is None:
        return None
    found = as_float32("masked_softmax", "bias", bias)
    try:
        fits = found.ndim > 0 and found.shape[-1] == shape[-1] and np.broadcast_shapes(found.shape, shape) == shape
    except ValueError:
        fits = False
    if not fits:
        raise ShapeError(
            f"masked_softmax: bias has shape {found.shape} and scores {shape}, they do not fit; "
            f"pass bias of shape (..., {shape[-1]})."
        )
    if found.size == shape[-1]:
        return found.reshape(1, shape[-1])
    return np.ascontiguousarray(np.broadcast_to(found, shape)).reshape(-1, shape[-1])
