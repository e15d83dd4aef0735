"""Generalised SpMM: Y[i, :] = reduce over stored j of w[i, j] * X[j, :]."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._arrays import empty_lines
from .._errors import DtypeError, InvalidArgument, ShapeError
from ..formats import CSR, SparseMatrix, is_torch, like
from ..formats._dtypes import Array
from ..kernels import operation_kernel
from ..kernels._base import Float32
from ._check import as_float32, check_matrix

REDUCTIONS = ("sum", "mean", "max", "min")


def gspmm(
    graph: SparseMatrix, x: Any, *, reduce: str = "sum", weights: Any = None, kernel: str = "auto", out: Any = None
) -> Any:
    """Reduce the rows of x that each row of a graph has entries for.

    A row without entries gives zeros, whatever the reduction. A NaN reaches the rows that have an entry for it, through
    max and min as well.

    Args:
        graph: (targets, sources); CSR is read in place, other formats are converted in each call.
        x: (sources, F), or (sources, H, F) with H heads; float32, bfloat16 or float16. NumPy, torch on the CPU or
            DLPack. Copied if not contiguous or not float32.
        reduce: sum, mean (over the stored entries), max or min.
        weights: None: 1 for every entry, the graph's own values are not looked at; "values": the graph's values; or an
            array (nnz,) in the order of its rows and columns, or (nnz, H) for x with heads.
        kernel: A name of `zeroskip.kernels.operations`, or "auto".
        out: Where the result is written, every element of it: float32, contiguous, of its shape; NumPy or torch on the
            CPU. It must share no memory with what is read. A result of many megabytes that is used again saves the
            page faults of a new one.
    Returns:
        `out` where it is given. Else (targets, F) or (targets, H, F), of the kind and dtype of `x`, accumulated in
        float32.
    Raises:
        ShapeError: If x does not have a row for each source, weights one value for each entry, or out another shape.
        InvalidArgument: If the reduction is not known, or out cannot be written in place.
        DtypeError: If x or weights are not of these types.
        KernelUnavailable: If the named kernel cannot run here; says why.
    """
    csr = as_csr("gspmm", graph)
    if reduce not in REDUCTIONS:
        raise InvalidArgument(f"gspmm: reduce is {reduce!r}, not known; choose one of: {', '.join(REDUCTIONS)}.")
    source = check_nodes("gspmm", "x", as_float32("gspmm", "x", x), csr.shape[1], "sources", heads=False)
    chosen = operation_kernel("gspmm", "gspmm", "csr", "float32", kernel)
    heads = source.shape[1] if source.ndim == 3 else 1
    values = check_weights("gspmm", csr, weights, heads)
    shape = (csr.shape[0], *source.shape[1:])
    if out is None:
        result = empty_lines(shape)
    else:
        read = (source, csr.indptr, csr.indices, *(() if values is None else (values,)))
        result = _writable("gspmm", out, shape, read)
    if result.size:
        cube = (-1, heads, source.shape[-1])
        chosen.function(csr, source.reshape(cube), values, reduce, result.reshape(cube))
    return like(result, x) if out is None else out


def _writable(where: str, out: Any, shape: tuple[int, ...], read: tuple[Array, ...]) -> Float32:
    """`out` as an array that a kernel can write in place."""
    if isinstance(out, np.ndarray):
        found = out
    elif is_torch(out) and out.device.type == "cpu" and str(out.layout) == "torch.strided" and not out.is_neg():
        if out.requires_grad:
            raise InvalidArgument(f"{where}: out is a tensor that requires a gradient; pass out.detach().")
        if str(out.dtype) != "torch.float32":
            raise DtypeError(f"{where}: out has dtype {out.dtype}, sums are float32; pass out of float32.")
        found = out.numpy()
    else:
        raise InvalidArgument(
            f"{where}: out is a {type(out).__name__} that cannot be written in place; "
            "pass a NumPy array or a dense torch tensor on the CPU."
        )
    if found.dtype != np.float32:
        raise DtypeError(f"{where}: out has dtype {found.dtype}, sums are float32; pass out of float32.")
    if found.shape != shape:
        raise ShapeError(f"{where}: out has shape {found.shape} but the result {shape}; pass out of shape {shape}.")
    if not (found.flags.c_contiguous and found.flags.aligned and found.flags.writeable):
        raise InvalidArgument(
            f"{where}: out is read-only or not contiguous (strides {found.strides}); "
            f"pass np.empty({shape}, np.float32)."
        )
    if any(np.may_share_memory(found, array) for array in read):
        raise InvalidArgument(
            f"{where}: out shares memory with x, the weights or the graph, which are still read; "
            "pass an array of its own."
        )
    return found


def as_csr(where: str, graph: Any) -> CSR:
    """The graph itself where it is CSR, else converted."""
    check_matrix(where, "graph", graph)
    if isinstance(graph, CSR):
        return graph
    found = graph.convert(CSR)
    assert isinstance(found, CSR)
    return found


def check_nodes(where: str, name: str, array: Float32, nodes: int, kind: str, *, heads: bool) -> Float32:
    """`array` (nodes, H, F), or (nodes, F) where it need not have heads."""
    wanted = (3,) if heads else (2, 3)
    shapes = f"({kind}, H, F)" if heads else f"({kind}, F) or ({kind}, H, F)"
    if array.ndim not in wanted:
        raise ShapeError(f"{where}: {name} has shape {array.shape}, it must be {shapes}; reshape it.")
    if array.shape[0] != nodes:
        raise ShapeError(
            f"{where}: {name} has {array.shape[0]} rows but the graph has {nodes} {kind}; pass one row for each."
        )
    return array


def check_weights(where: str, graph: CSR, weights: Any, heads: int) -> Float32 | None:
    """Weights as (nnz, heads), or None for 1."""
    if weights is None:
        return None
    if isinstance(weights, str):
        if weights != "values":
            raise InvalidArgument(f'{where}: weights is {weights!r}, pass None, "values" or an array (nnz,).')
        found = np.ascontiguousarray(graph.decoded(), dtype=np.float32)
    else:
        found = as_float32(where, "weights", weights)
    if found.shape != (graph.nnz,) and found.shape != (graph.nnz, heads):
        raise ShapeError(
            f"{where}: weights have shape {found.shape} but the graph has {graph.nnz} entries and x {heads} heads; "
            f"pass ({graph.nnz},) or ({graph.nnz}, {heads})."
        )
    if found.ndim == 1:
        found = found[:, None]
    return np.ascontiguousarray(np.broadcast_to(found, (graph.nnz, heads)))
