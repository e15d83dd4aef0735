"""Graphs: made, normalised, put together, reordered; and what the operations over edges refuse."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from zeroskip import DtypeError, InvalidArgument, KernelUnavailable, ShapeError, ops
from zeroskip.formats import BSR, CSR
from zeroskip.ops import graph_reference as reference
from zeroskip.testing import random_dense
from zeroskip.testing.graphs import graph_of_lengths, power_law

graphs = sys.modules["zeroskip.ops.graphs"]


def small() -> CSR:
    return graph_of_lengths(np.array([2, 0, 3, 1, 4]), 5, 1)


def test_edges_in_any_order_become_rows_of_targets() -> None:
    graph = ops.from_edges([3, 0, 1, 0], [1, 1, 0, 3], 5)
    expected = np.zeros((5, 5), dtype=np.float32)
    expected[[1, 1, 0, 3], [3, 0, 1, 0]] = 1
    np.testing.assert_array_equal(graph.to_dense(), expected)
    assert graph.indptr.dtype == np.int64


def test_repeated_edges_are_one_entry_with_the_sum() -> None:
    graph = ops.from_edges([1, 1, 2], [0, 0, 0], 3)
    np.testing.assert_array_equal(graph.to_dense()[0], [0, 2, 1])
    graph = ops.from_edges([1, 1, 2], [0, 0, 0], 3, weights=np.array([0.5, 2.0, 3.0], dtype=np.float32))
    np.testing.assert_array_equal(graph.to_dense()[0], [0, 2.5, 3])


def test_graphs_without_edges_and_between_two_kinds_of_nodes() -> None:
    empty = ops.from_edges([], [], 4)
    assert empty.nnz == 0
    np.testing.assert_array_equal(ops.gspmm(empty, np.ones((4, 3), np.float32), reduce="max"), np.zeros((4, 3)))
    assert ops.from_edges([6], [1], (2, 7)).shape == (2, 7)


@pytest.mark.parametrize(("src", "dst", "match"), [([5], [0], r"src\[0\] is 5"), ([0, 1], [0, -1], r"dst\[1\] is -1")])
def test_edges_of_nodes_that_are_not_there_are_refused(src: list[int], dst: list[int], match: str) -> None:
    with pytest.raises(InvalidArgument, match=match):
        ops.from_edges(src, dst, 5)


def test_edges_of_wrong_kind_are_refused() -> None:
    with pytest.raises(ShapeError, match="src has 2 entries and dst 1"):
        ops.from_edges([0, 1], [0], 5)
    with pytest.raises(DtypeError, match="pass integers"):
        ops.from_edges([0.5], [0.5], 5)
    with pytest.raises(ShapeError, match="weights have shape"):
        ops.from_edges([0], [0], 5, weights=np.ones(2, np.float32))


def test_a_graph_larger_than_memory_is_refused_with_the_bytes_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = 1 << 50
    needed = graphs.edges_nbytes(1, nodes, 100)
    with pytest.raises(InvalidArgument, match=f"takes {needed} bytes"):
        ops.from_edges([0], [0], (nodes, 100))
    monkeypatch.setattr(graphs, "available_bytes", lambda: 10)
    with pytest.raises(InvalidArgument, match="10 are available"):
        ops.from_edges([0], [0], 5)


def test_unsorted_or_repeated_columns_are_refused_by_the_format() -> None:
    for columns in ([2, 1], [1, 1]):
        with pytest.raises(ValueError, match="indices increase within a row"):
            CSR((1, 3), np.array([0, 2]), np.array(columns, np.int32), np.ones(2, np.float32))


@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize("kind", ["symmetric", "row"])
def test_normalised_adjacency(kind: str, self_loops: bool) -> None:
    graph = ops.from_edges([0, 1, 2, 2, 3], [1, 0, 1, 2, 0], 5)  # node 2 has a loop, node 4 nothing
    dense = graph.to_dense().astype(np.float64)
    if self_loops:
        dense += np.diag(dense.diagonal() == 0)
    sums = dense.sum(1)
    with np.errstate(divide="ignore"):
        inverse = np.where(sums > 0, 1 / sums, 0)
    scaled = inverse[:, None] * dense if kind == "row" else np.sqrt(inverse)[:, None] * dense * np.sqrt(inverse)
    found = ops.normalised_adjacency(graph, self_loops=self_loops, kind=kind)
    np.testing.assert_allclose(found.to_dense(), scaled, rtol=1e-6)
    with pytest.raises(InvalidArgument, match="choose one of: symmetric, row"):
        ops.normalised_adjacency(graph, kind="other")
    with pytest.raises(ShapeError, match="square"):
        ops.normalised_adjacency(graph_of_lengths(np.array([1]), 3))


def test_block_diagonal_keeps_graphs_apart() -> None:
    parts = [small(), ops.from_edges([], [], 3), power_law(20, 50, 2)]
    found, offsets = ops.block_diagonal(parts)
    np.testing.assert_array_equal(offsets, [0, 5, 8, 28])
    expected = np.zeros((28, 28), dtype=np.float32)
    for part, at in zip(parts, offsets, strict=False):
        expected[at : at + part.shape[0], at : at + part.shape[0]] = part.to_dense()
    np.testing.assert_array_equal(found.to_dense(), expected)
    with pytest.raises(InvalidArgument, match="graphs is empty"):
        ops.block_diagonal([])


@pytest.mark.parametrize("order", ["auto", "transform_first", "aggregate_first"])
@pytest.mark.parametrize("reduce", ["sum", "mean"])
@pytest.mark.parametrize("sizes", [(4, 9), (9, 4)])
def test_relations_are_transformed_and_summed(order: str, reduce: str, sizes: tuple[int, int]) -> None:
    relations = [power_law(30, 90, seed) for seed in range(3)] + [ops.from_edges([], [], 30)]
    x, weights = random_dense((30, sizes[0]), seed=1), random_dense((4, *sizes), seed=2)
    expected = np.zeros((30, sizes[1]))
    for graph, weight in zip(relations, weights, strict=True):
        expected += reference.gspmm(graph, x[:, None], None, reduce)[:, 0] @ weight.astype(np.float64)
    found = ops.relation_spmm(relations, x, weights, reduce=reduce, order=order)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("method", ["degree", "rcm"])
def test_reordered_graphs_give_the_same_in_another_order(method: str) -> None:
    if method == "rcm":
        pytest.importorskip("scipy")
    graph = power_law(60, 300, 3)
    found = ops.reorder(graph, method)
    order = found.permutation
    np.testing.assert_array_equal(found.graph.to_dense(), graph.to_dense()[np.ix_(order, order)])
    assert found.time_s > 0
    assert min(found.span_before, found.span_after) > 0
    with pytest.raises(InvalidArgument, match="choose one of: degree, rcm"):
        ops.reorder(graph, "other")


def test_weights_by_name_and_by_array() -> None:
    graph, x = small(), random_dense((5, 3), seed=4)
    values = ops.gspmm(graph, x, weights="values")
    np.testing.assert_allclose(values, graph.to_dense() @ x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(values, ops.gspmm(graph, x, weights=graph.data))
    np.testing.assert_allclose(ops.gspmm(graph, x), (graph.to_dense() != 0) @ x, rtol=1e-5, atol=1e-6)
    other = BSR.from_dense(np.ones((5, 5), np.float32), block=(5, 5))
    np.testing.assert_allclose(ops.gspmm(other, x), np.ones((5, 5)) @ x, rtol=1e-5, atol=1e-6)


def test_operations_refuse_what_does_not_fit() -> None:
    graph, x = small(), np.ones((5, 2, 3), np.float32)
    scores = np.ones((5, 2), np.float32)
    for call, error, match in (
        (lambda: ops.gspmm(graph, x[:4]), ShapeError, "4 rows but the graph has 5 sources"),
        (lambda: ops.gspmm(graph, x[0, 0]), ShapeError, "reshape it"),
        (lambda: ops.gspmm(graph, x, reduce="prod"), InvalidArgument, "choose one of: sum, mean, max, min"),
        (lambda: ops.gspmm(graph, x, weights=np.ones(9, np.float32)), ShapeError, "10 entries"),
        (lambda: ops.gspmm(graph, x, weights="other"), InvalidArgument, "values"),
        (lambda: ops.gspmm(graph, x.astype(np.float64)), DtypeError, "float64"),
        (lambda: ops.gspmm(graph, x, kernel="none"), KernelUnavailable, "not known"),
        (lambda: ops.gspmm(graph.to_dense(), x), InvalidArgument, "not a sparse matrix"),
        (lambda: ops.gat(graph, x, scores[:4], scores), ShapeError, "left has shape"),
        (lambda: ops.gat(graph, x, scores, scores[:, :1]), ShapeError, "right has shape"),
        (lambda: ops.gat(graph, x, scores, scores, negative_slope=float("nan")), InvalidArgument, "finite"),
        (lambda: ops.gat(graph, x[:, 0], scores, scores), ShapeError, "sources, H, F"),
        (lambda: ops.edge_softmax(graph, scores), ShapeError, "10 entries"),
        (lambda: ops.sddmm_add(graph, scores, scores[:, 0]), ShapeError, "right has shape"),
    ):
        with pytest.raises(error, match=match):
            call()


def test_scores_of_one_head_keep_their_shape() -> None:
    graph = small()
    left, right = random_dense((5,), seed=5), random_dense((5,), seed=6)
    scores = ops.sddmm_add(graph, left, right)
    assert scores.shape == (graph.nnz,)
    found = ops.edge_softmax(graph, scores)
    np.testing.assert_allclose(np.add.reduceat(found, graph.indptr[[0, 2, 3, 4]]), 1, rtol=1e-6)


@pytest.mark.parametrize("heads", [0, 2])
def test_sums_are_written_where_they_are_asked_for(heads: int) -> None:
    torch = pytest.importorskip("torch")
    graph = small()
    x = random_dense((5, heads, 3) if heads else (5, 3), seed=2)
    expected = ops.gspmm(graph, x, weights="values")
    out = np.full(x.shape, np.nan, dtype=np.float32)
    assert ops.gspmm(graph, x, weights="values", out=out) is out
    np.testing.assert_array_equal(out, expected)
    tensor = torch.full(x.shape, torch.nan)
    assert ops.gspmm(graph, torch.from_numpy(x).bfloat16(), out=tensor) is tensor
    rounded = torch.from_numpy(x).bfloat16().float().numpy()
    np.testing.assert_array_equal(tensor.numpy(), ops.gspmm(graph, rounded))


def test_a_result_that_cannot_be_written_is_refused_before_anything_is() -> None:
    torch = pytest.importorskip("torch")
    graph, x = small(), random_dense((5, 3), seed=2)
    before = x.copy()
    frozen = np.zeros((5, 3), dtype=np.float32)
    frozen.flags.writeable = False
    weights = random_dense((graph.nnz + 15,), seed=3)
    for out, error, words in (
        (np.zeros((5, 4), np.float32), ShapeError, r"out has shape \(5, 4\) but the result \(5, 3\)"),
        (np.zeros((5, 3)), DtypeError, "out has dtype float64"),
        (torch.zeros(5, 3, dtype=torch.bfloat16), DtypeError, "out has dtype torch.bfloat16"),
        (torch.zeros(5, 3, requires_grad=True), InvalidArgument, "out.detach"),
        (np.zeros((3, 5), np.float32).T, InvalidArgument, "not contiguous"),
        (frozen, InvalidArgument, "read-only"),
        (x, InvalidArgument, "shares memory"),
        (weights[-15:].reshape(5, 3), None, ""),
        (weights[:15].reshape(5, 3), InvalidArgument, "shares memory"),
        ([[0.0] * 3] * 5, InvalidArgument, "a list that cannot be written in place"),
    ):
        if error is None:
            ops.gspmm(graph, x, weights=weights[: graph.nnz], out=out)
            continue
        with pytest.raises(error, match=words):
            ops.gspmm(graph, x, weights=weights[: graph.nnz], out=out)
    np.testing.assert_array_equal(x, before)
    assert not frozen.any()
