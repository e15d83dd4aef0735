"""What every operation means, in float64 and without speed: the definitions that kernels are compared with.

A product is the sum over *stored* entries; those of a quantised matrix have their dequantised values. An element of x
that no stored entry meets does not matter, even if it is NaN or infinite; one that meets a stored zero (a format's
padding, or an explicit zero) does: 0 * inf is NaN. A dense kernel stores every entry, so there NaN and Inf reach every
row.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from ..formats import SparseMatrix
from ..kernels import ACTIVATIONS

Float64 = npt.NDArray[np.float64]

_CHUNK_ELEMS = 1 << 17  # what L2 holds: larger ones take twice to three times as long
_erf = np.frompyfunc(math.erf, 1, 1)


def spmm(a: SparseMatrix, x: Any, *, bias: Any = None, activation: str | None = None) -> Float64:
    """C = activation(A @ x + bias), x (K, N), bias (M,), in float64 over the stored entries of `a`."""
    product = stored_product(a, x)
    if bias is not None:
        product += np.asarray(bias, dtype=np.float64)[:, None]
    return activate(product, activation)


def linear(x: Any, w: SparseMatrix, *, bias: Any = None, activation: str | None = None) -> Float64:
    """activation(x @ W.T + bias), x (..., K)."""
    rows = np.asarray(x, dtype=np.float64)
    result = spmm(w, rows.reshape(-1, rows.shape[-1]).T, bias=bias, activation=activation)
    return np.ascontiguousarray(result.T).reshape(*rows.shape[:-1], w.shape[0])


def spmv(a: SparseMatrix, x: Any, *, bias: Any = None, activation: str | None = None) -> Float64:
    """activation(A @ x + bias), x (K,)."""
    return spmm(a, np.asarray(x)[:, None], bias=bias, activation=activation)[:, 0]


def stored_product(a: SparseMatrix, x: Any, *, absolute: bool = False) -> Float64:
    """A @ x over stored entries; with `absolute`, |A| @ |x|."""
    found = a.entries()
    rows, cols, values = found.rows, found.cols, a.values(found).astype(np.float64)
    x = np.asarray(x, dtype=np.float64)
    if absolute:
        values, x = np.abs(values), np.abs(x)
    product = np.zeros((a.shape[0], x.shape[1]))
    step = max(1, _CHUNK_ELEMS // max(1, x.shape[1]))
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, values.size, step):
            part = slice(start, start + step)
            terms = values[part, None] * x[cols[part]]
            first = np.flatnonzero(np.diff(rows[part], prepend=-1))
            product[rows[part][first]] += np.add.reduceat(terms, first, axis=0)
    return product


def activate(c: Float64, activation: str | None) -> Float64:
    """The activation of every element of `c`, in float64; NaN stays NaN."""
    if activation is None:
        return c
    with np.errstate(all="ignore"):
        if activation == "relu":
            return np.maximum(c, 0.0)
        if activation == "tanh":
            return np.tanh(c)
        if activation == "silu":
            return np.asarray(c / (1.0 + np.exp(-c)))
        if activation == "gelu":
            erf = np.asarray(_erf(c * math.sqrt(0.5)), dtype=np.float64)
            return np.asarray(0.5 * c * (1.0 + erf))
        if activation == "gelu_tanh":
            return np.asarray(0.5 * c * (1.0 + np.tanh(math.sqrt(2.0 / math.pi) * (c + 0.044715 * c**3))))
    raise InvalidArgument(
        f"activate: activation is {activation!r}, which is not known; choose None or one of: {', '.join(ACTIVATIONS)}."
    )
