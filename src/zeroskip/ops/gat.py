"""Attention over the edges of a graph with additive scores, fused, and its two pieces that give scores of edges."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .._errors import InvalidArgument, ShapeError
from ..formats import SparseMatrix, like
from ..kernels import operation_kernel
from ..kernels._base import Float32
from ._check import as_float32
from .gspmm import as_csr, check_nodes


def gat(
    graph: SparseMatrix, x: Any, left: Any, right: Any, *, negative_slope: float = 0.2, kernel: str = "auto"
) -> Any:
    """y[i, h] = sum over stored j of softmax_j(leaky_relu(left[i, h] + right[j, h])) * x[j, h].

    One pass over the edges; no score is written to memory. A row without entries gives zeros. Where all scores of a row
    are -inf, or one is NaN or +inf, the row is NaN in that head, as in torch.

    Args:
        graph: (targets, sources); its values are not looked at. CSR is read in place, others converted in each call.
        x: (sources, H, F), float32, bfloat16 or float16; NumPy, torch on the CPU or DLPack.
        left: (targets, H), what the target adds to the scores of its entries.
        right: (sources, H), what the source adds.
        negative_slope: Of leaky_relu, for scores below 0.
        kernel: A name of `zeroskip.kernels.operations`, or "auto".
    Returns:
        (targets, H, F), of the kind and dtype of `x`, accumulated in float32.
    Raises:
        ShapeError: If shapes do not fit each other or the graph.
        DtypeError: If an operand is not of these types.
        KernelUnavailable: If the named kernel cannot run here; says why.
    """
    csr = as_csr("gat", graph)
    source = check_nodes("gat", "x", as_float32("gat", "x", x), csr.shape[1], "sources", heads=True)
    heads = source.shape[1]
    lefts = _check_scores("gat", "left", left, csr.shape[0], "targets", heads)
    rights = _check_scores("gat", "right", right, csr.shape[1], "sources", heads)
    slope = float(negative_slope)
    if not math.isfinite(slope):
        raise InvalidArgument(f"gat: negative_slope is {negative_slope!r}, it must be finite; pass 0.2.")
    chosen = operation_kernel("gat", "gat", "csr", "float32", kernel)
    out = np.empty((csr.shape[0], *source.shape[1:]), dtype=np.float32)
    if out.size:
        chosen.function(csr, source, lefts, rights, slope, out)
    return like(out, x)


def edge_softmax(graph: SparseMatrix, scores: Any, *, kernel: str = "auto") -> Any:
    """Softmax of scores over the stored entries of each row, stable for scores of any size.

    Args:
        graph: Its pattern; CSR is read in place, others converted in each call.
        scores: (nnz,) or (nnz, H), in the order of rows and columns; float32, bfloat16 or float16.
        kernel: A name of `zeroskip.kernels.operations`, or "auto".
    Returns:
        The shape, kind and dtype of `scores`. NaN in a row whose scores are all -inf, or of which one is NaN or +inf.
    Raises:
        ShapeError: If there is not one score, or row of scores, for each entry.
    """
    csr = as_csr("edge_softmax", graph)
    found = as_float32("edge_softmax", "scores", scores)
    if found.ndim not in (1, 2) or found.shape[0] != csr.nnz:
        raise ShapeError(
            f"edge_softmax: scores have shape {found.shape} but the graph has {csr.nnz} entries; "
            f"pass ({csr.nnz},) or ({csr.nnz}, H)."
        )
    chosen = operation_kernel("edge_softmax", "edge_softmax", "csr", "float32", kernel)
    out = np.empty(found.shape, dtype=np.float32)
    if out.size:
        chosen.function(csr, found.reshape(csr.nnz, -1), out.reshape(csr.nnz, -1))
    return like(out, scores)


def sddmm_add(graph: SparseMatrix, left: Any, right: Any, *, kernel: str = "auto") -> Any:
    """left[i] + right[j] for each stored entry (i, j).

    Args:
        graph: (targets, sources), its pattern; CSR is read in place, others converted in each call.
        left: (targets, H) or (targets,); float32, bfloat16 or float16.
        right: (sources, H) or (sources,).
        kernel: A name of `zeroskip.kernels.operations`, or "auto".
    Returns:
        (nnz, H) or (nnz,), in the order of rows and columns, of the kind and dtype of `left`.
    Raises:
        ShapeError: If shapes do not fit each other or the graph.
    """
    csr = as_csr("sddmm_add", graph)
    first = as_float32("sddmm_add", "left", left)
    if first.ndim not in (1, 2):
        raise ShapeError(f"sddmm_add: left has shape {first.shape}, it must be (targets,) or (targets, H); reshape it.")
    heads = first.shape[1] if first.ndim == 2 else None
    lefts = _check_scores("sddmm_add", "left", first, csr.shape[0], "targets", heads)
    rights = _check_scores("sddmm_add", "right", right, csr.shape[1], "sources", heads)
    chosen = operation_kernel("sddmm_add", "sddmm_add", "csr", "float32", kernel)
    out = np.empty((csr.nnz, *first.shape[1:]), dtype=np.float32)
    if out.size:
        chosen.function(csr, lefts, rights, out.reshape(csr.nnz, -1))
    return like(out, left)


def _check_scores(where: str, name: str, array: Any, nodes: int, kind: str, heads: int | None) -> Float32:
    """`array` as (nodes, heads); (nodes,) where heads is None."""
    found = as_float32(where, name, array)
    wanted = (nodes,) if heads is None else (nodes, heads)
    if found.shape != wanted:
        heads_of = "" if heads is None else f" and there are {heads} heads"
        raise ShapeError(
            f"{where}: {name} has shape {found.shape} but the graph has {nodes} {kind}{heads_of}; pass {wanted}."
        )
    return found.reshape(nodes, -1)
