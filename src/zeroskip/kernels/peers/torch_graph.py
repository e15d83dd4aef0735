"""torch on the CPU over the edges of a graph: its CSR product, and its scatter operations, which is how graph libraries
run without kernels of their own. Called as the kernels of `kernels.graph` are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...formats import CSR
from .._base import Float32
from .._operations import OperationKernel, operations
from ._common import missing, only_sums
from .torch_dense import tensor_of

_REDUCE = {"sum": "sum", "mean": "mean", "max": "amax", "min": "amin"}


def csr_matmul(graph: CSR, x: Float32, weights: Float32 | None, reduce: str, out: Float32) -> None:
    """torch's product of a CSR matrix, one head at a time; a mean is a sum, divided."""
    import torch

    only_sums("gspmm_csr_f32_torch", reduce)
    flat = tensor_of(x)
    for head in range(x.shape[1]):
        matrix = csr_of(graph, None if weights is None else weights[:, head])
        found = matrix @ flat[:, head].contiguous()
        if reduce == "mean":
            found /= torch.from_numpy(np.maximum(np.diff(graph.indptr), 1).astype(np.float32))[:, None]
        torch.from_numpy(out)[:, head] = found


def csr_of(graph: CSR, values: Float32 | None) -> Any:
    """The graph as torch's own CSR matrix."""
    import warnings

    import torch

    data = np.ones(graph.nnz, dtype=np.float32) if values is None else np.ascontiguousarray(values)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # "sparse CSR support is in beta"
        return torch.sparse_csr_tensor(
            tensor_of(graph.indptr),
            torch.from_numpy(graph.indices.astype(np.int64)),
            tensor_of(data),
            size=graph.shape,
        )


def edges_of(graph: CSR) -> tuple[Any, Any]:
    """Target and source of each entry, as tensors."""
    import torch

    rows, cols = graph.places()
    return torch.from_numpy(rows), torch.from_numpy(cols)


def scatter(graph: CSR, x: Float32, weights: Float32 | None, reduce: str, out: Float32) -> None:
    """Rows of x gathered, an entry a row, weighted, and scattered to their targets."""
    import torch

    targets, sources = edges_of(graph)
    messages = tensor_of(x)[sources]
    if weights is not None:
        messages = messages * tensor_of(weights)[:, :, None]
    result = torch.from_numpy(out).zero_()
    if reduce == "sum":
        result.index_add_(0, targets, messages)
        return
    at = targets[:, None, None].expand_as(messages)
    result.scatter_reduce_(0, at, messages, _REDUCE[reduce], include_self=False)


def softmax(targets: Any, scores: Any, rows: int) -> Any:
    """Softmax of scores (entries, heads) over the entries of each target."""
    import torch

    at = targets[:, None].expand_as(scores)
    most = torch.zeros((rows, scores.shape[1])).scatter_reduce_(0, at, scores, "amax", include_self=False)
    found = torch.exp(scores - most[targets])
    sums = torch.zeros((rows, scores.shape[1])).index_add_(0, targets, found)
    return found / sums[targets]


def edge_softmax(graph: CSR, scores: Float32, out: Float32) -> None:
    import torch

    targets, _ = edges_of(graph)
    torch.from_numpy(out).copy_(softmax(targets, tensor_of(scores), graph.shape[0]))


def sddmm_add(graph: CSR, left: Float32, right: Float32, out: Float32) -> None:
    import torch

    targets, sources = edges_of(graph)
    torch.from_numpy(out).copy_(tensor_of(left)[targets] + tensor_of(right)[sources])


def gat(graph: CSR, x: Float32, left: Float32, right: Float32, slope: float, out: Float32) -> None:
    """What a graph library does in torch alone: scores, softmax by scatter, messages, scatter."""
    import torch

    targets, sources = edges_of(graph)
    gat_of_edges(targets, sources, tensor_of(x), tensor_of(left), tensor_of(right), slope, torch.from_numpy(out))


def gat_of_edges(targets: Any, sources: Any, x: Any, left: Any, right: Any, slope: float, out: Any) -> None:
    import torch

    scores = torch.nn.functional.leaky_relu(left[targets] + right[sources], slope)
    weights = softmax(targets, scores, out.shape[0])
    out.zero_().index_add_(0, targets, x[sources] * weights[:, :, None])


_KERNELS = (
    ("gspmm", "csr_f32_torch", csr_matmul, "torch's product of a CSR matrix: sum and mean"),
    ("gspmm", "csr_f32_torch_scatter", scatter, "gather, multiply, index_add or scatter_reduce"),
    ("gat", "csr_f32_torch_scatter", gat, "gather, softmax by scatter, index_add"),
    ("edge_softmax", "csr_f32_torch_scatter", edge_softmax, "scatter_reduce and index_add"),
    ("sddmm_add", "csr_f32_torch", sddmm_add, "two gathers"),
)

for _op, _rest, _function, _doc in _KERNELS:
    operations.add(
        f"{_op}_{_rest}",
        OperationKernel(f"{_op}_{_rest}", _op, "csr", "float32", "torch", "torch", _function, missing("torch"), _doc),
    )
