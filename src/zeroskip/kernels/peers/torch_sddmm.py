"""torch's ways to an SDDMM and to a softmax over a pattern: its sparse operations, and the dense product with a mask.

A mask or a graph comes with each call, so sparse tensors are made in it; `bind` makes them once, for benchmarks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from ...formats import SparseMatrix
from ...formats._dtypes import Array
from .._base import Float32
from .._operations import OperationKernel, operations
from ._common import missing

Work = Callable[[Array, Array, Float32, Float32 | None, float], None]


def sampled_addmm(
    pattern: SparseMatrix, a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float
) -> None:
    """torch.sparse.sampled_addmm, a matrix at a time."""
    bind_sampled(pattern)(a, b, out, values, alpha)


def bind_sampled(pattern: SparseMatrix) -> Work:
    """`sampled_addmm` for one pattern."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "sparse CSR support is in beta"
        mask = csr_tensor(pattern)

    def work(a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float) -> None:
        flat = _lines(out)
        for i, (left, right) in enumerate(zip(_matrices(a), _matrices(b), strict=True)):
            found = torch.sparse.sampled_addmm(mask, _tensor(left), _tensor(right).t(), beta=0.0, alpha=alpha)
            flat[i] = found.values().numpy()
        if values is not None:
            out *= values

    return work


def dense_then_mask(
    pattern: SparseMatrix, a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float
) -> None:
    """The whole product, of which the entries are picked."""
    bind_dense(pattern)(a, b, out, values, alpha)


def bind_dense(pattern: SparseMatrix) -> Work:
    """`dense_then_mask` for one pattern."""
    import torch

    rows, cols, _ = pattern.entries()
    places = torch.from_numpy(rows * pattern.shape[1] + cols)

    def work(a: Array, b: Array, out: Float32, values: Float32 | None, alpha: float) -> None:
        flat = _lines(out)
        for i, (left, right) in enumerate(zip(_matrices(a), _matrices(b), strict=True)):
            product = torch.mm(_tensor(left), _tensor(right).t())
            torch.index_select(product.view(-1), 0, places, out=torch.from_numpy(flat[i]))
        if alpha != 1.0:
            out *= np.float32(alpha)
        if values is not None:
            out *= values

    return work


def sparse_softmax(pattern: SparseMatrix, scores: Float32, out: Float32, scale: float, bias: Float32 | None) -> None:
    """torch.sparse.softmax, which takes stored entries alone."""
    import torch

    rows, cols, _ = pattern.entries()
    places = torch.from_numpy(np.stack((rows, cols)))
    exponents = _exponents(scores, scale, bias)
    for i, row in enumerate(exponents):
        given = torch.sparse_coo_tensor(
            places, torch.from_numpy(row), pattern.shape, is_coalesced=True, check_invariants=False
        )
        out[i] = torch.sparse.softmax(given, dim=1).values().numpy()
    _clear(rows, exponents, out)


def dense_softmax(pattern: SparseMatrix, scores: Float32, out: Float32, scale: float, bias: Float32 | None) -> None:
    """The softmax of a dense matrix that is -inf where nothing is stored."""
    import torch

    rows, cols, _ = pattern.entries()
    exponents = _exponents(scores, scale, bias)
    for i, row in enumerate(exponents):
        whole = torch.full(pattern.shape, -torch.inf)
        whole.numpy()[rows, cols] = row
        out[i] = torch.softmax(whole, dim=1).numpy()[rows, cols]
    _clear(rows, exponents, out)


def csr_tensor(pattern: SparseMatrix) -> Any:
    """A torch CSR tensor of zeros with the layout of a CSR pattern."""
    import torch

    indptr: Array = pattern.indptr  # type: ignore[attr-defined]
    indices: Array = pattern.indices  # type: ignore[attr-defined]
    return torch.sparse_csr_tensor(
        torch.from_numpy(np.array(indptr)),
        torch.from_numpy(indices.astype(np.int64)),
        torch.zeros(pattern.nnz),
        size=pattern.shape,
        check_invariants=False,
    )


def _exponents(scores: Float32, scale: float, bias: Float32 | None) -> Float32:
    found: Float32 = scores * np.float32(scale)
    return found if bias is None else found + bias


def _clear(rows: Array, exponents: Float32, out: Float32) -> None:
    """Zeros where a row is -inf throughout, which torch's softmax makes NaN."""
    if not rows.size:
        return
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    counts = np.diff(first, append=rows.size)
    most = np.maximum.reduceat(exponents, first, axis=1)
    out[np.repeat(most == -np.inf, counts, axis=1)] = 0.0


def _lines(array: Array) -> Array:
    """(batches, nnz), where nnz may be 0."""
    return array.reshape(int(np.prod(array.shape[:-1])), array.shape[-1])


def _matrices(array: Array) -> Array:
    return array.reshape(-1, *array.shape[-2:])


def _tensor(array: Array) -> Any:
    import torch

    return torch.from_numpy(array if array.flags.writeable else np.array(array))


for _name, _op, _function, _doc, _bind in (
    ("sddmm_csr_f32_torch", "sddmm", sampled_addmm, "torch.sparse.sampled_addmm", bind_sampled),
    ("sddmm_csr_f32_torch_dense", "sddmm", dense_then_mask, "torch.mm, then the entries", bind_dense),
    ("masked_softmax_csr_f32_torch", "masked_softmax", sparse_softmax, "torch.sparse.softmax", None),
    ("masked_softmax_csr_f32_torch_dense", "masked_softmax", dense_softmax, "torch.softmax of a dense matrix", None),
):
    _kernel = OperationKernel(
        _name, _op, "csr", "float32", "torch", "torch", _function, missing("torch"), _doc, bind=_bind
    )
    operations.add(_name, _kernel)
