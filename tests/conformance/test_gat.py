"""Every kernel of gat, edge_softmax and sddmm_add, ours of all instruction sets and rivals, against float64."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

from zeroskip.formats import CSR
from zeroskip.kernels import operations
from zeroskip.ops import graph_reference as reference
from zeroskip.testing import guarded, random_dense
from zeroskip.testing.graph_bounds import (
    assert_within,
    edge_softmax_bound,
    gat_bound,
    sddmm_add_bound,
)
from zeroskip.testing.graphs import GRAPHS

OPS = ("gat", "edge_softmax", "sddmm_add")
KERNELS = {kernel.name: kernel for kernel in operations if kernel.op in OPS}
USABLE = [name for name, kernel in KERNELS.items() if kernel.why_not() is None]
SLOPE = 0.2


def named(op: str, *, native: bool = False) -> list[str]:
    return [n for n in USABLE if KERNELS[n].op == op and (KERNELS[n].origin == "native" or not native)]


@cache
def graph_called(name: str) -> CSR:
    return GRAPHS[name]()


def placed(array: np.ndarray) -> Any:
    found = guarded(array.shape, shift=1)
    found.array[...] = array
    return found


def run(name: str, graph: CSR, arrays: list[np.ndarray], rest: list[object], shape: tuple[int, ...]) -> np.ndarray:
    sources, out = [placed(array) for array in arrays], guarded(shape, shift=3)
    KERNELS[name].function(graph, *(source.array for source in sources), *rest, out.array)
    assert out.intact(), "wrote outside of its output"
    assert all(source.intact() for source in sources)
    return out.array


def check_gat(name: str, graph: CSR, x: np.ndarray, left: np.ndarray, right: np.ndarray, slope: float = SLOPE) -> None:
    found = run(name, graph, [x, left, right], [slope], (graph.shape[0], *x.shape[1:]))
    assert_within(found, reference.gat(graph, x, left, right, slope), gat_bound(graph, x, left, right, slope))


def operands(graph: CSR, heads: int, features: int, size: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    x = random_dense((graph.shape[1], heads, features), seed=1)
    left = random_dense((graph.shape[0], heads), seed=2) * np.float32(size)
    right = random_dense((graph.shape[1], heads), seed=3) * np.float32(size)
    return x, left, right


@pytest.mark.parametrize("case", GRAPHS)
@pytest.mark.parametrize("name", named("gat"))
def test_gat_keeps_the_error_bound(name: str, case: str, record_property: Callable[[str, object], None]) -> None:
    graph = graph_called(case)
    shapes = ((1, 1), (1, 7), (2, 16), (3, 5), (4, 32), (1, 65), (8, 8))
    for heads, features in shapes:
        check_gat(name, graph, *operands(graph, heads, features))
    record_property("isa", KERNELS[name].isa)
    record_property("checks", len(shapes))


@pytest.mark.parametrize("slope", [0.0, 1.0, -0.5, 0.01])
@pytest.mark.parametrize("name", named("gat"))
def test_gat_takes_any_slope_and_scores_of_any_size(name: str, slope: float) -> None:
    for case in ("int32", "around a block"):
        graph = graph_called(case)
        check_gat(name, graph, *operands(graph, 2, 9), slope)
        check_gat(name, graph, *operands(graph, 2, 9, 100.0), slope)


@pytest.mark.parametrize("name", named("gat", native=True))
def test_gat_nan_and_infinity_reach_what_their_entries_touch_and_nothing_else(name: str) -> None:
    for case in ("int32", "around a block"):
        graph = graph_called(case)
        x, left, right = operands(graph, 2, 9)
        x[3, 0, 4] = np.nan
        x[9, 1, 2] = np.inf
        right[5, 0] = np.nan
        left[4, 1] = np.inf
        right[21, 1] = -np.inf
        check_gat(name, graph, x, left, right)


@pytest.mark.parametrize("name", named("gat", native=True))
def test_gat_a_block_of_scores_that_are_minus_infinity_changes_nothing(name: str) -> None:
    graph = graph_called("around a block")
    x, left, right = operands(graph, 1, 16)
    row = 5
    first = graph.indptr[row]
    right[graph.indices[first : first + 60], 0] = -np.inf
    check_gat(name, graph, x, left, right)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", [n for n in USABLE if KERNELS[n].origin == "native"])
def test_any_number_of_threads_and_rows_that_are_cut(name: str, threads: int) -> None:
    from zeroskip.kernels.cpu import get_num_threads, set_num_threads

    graph = graph_called("hubs")
    before = get_num_threads()
    try:
        set_num_threads(threads)
        for heads, features in ((1, 20), (4, 8)):
            check_one(name, graph, heads, features)
    finally:
        set_num_threads(before)


def check_one(name: str, graph: CSR, heads: int, features: int = 8, size: float = 1.0) -> None:
    x, left, right = operands(graph, heads, features, size)
    op = KERNELS[name].op
    if op == "gat":
        check_gat(name, graph, x, left, right)
    elif op == "edge_softmax":
        scores = random_dense((graph.nnz, heads), seed=4) * np.float32(size)
        found = run(name, graph, [scores], [], scores.shape)
        assert_within(found, reference.edge_softmax(graph, scores), edge_softmax_bound(graph, scores))
    else:
        found = run(name, graph, [left, right], [], (graph.nnz, heads))
        assert_within(found, reference.sddmm_add(graph, left, right), sddmm_add_bound(graph, left, right))


@pytest.mark.parametrize("case", GRAPHS)
@pytest.mark.parametrize("name", [*named("edge_softmax"), *named("sddmm_add")])
def test_scores_of_edges_keep_the_error_bound(
    name: str, case: str, record_property: Callable[[str, object], None]
) -> None:
    sizes = [(heads, size) for heads in (1, 2, 3, 8, 17) for size in (1.0, 50.0)]
    for heads, size in sizes:
        check_one(name, graph_called(case), heads, size=size)
    record_property("isa", KERNELS[name].isa)
    record_property("checks", len(sizes))


@pytest.mark.parametrize("name", named("edge_softmax", native=True))
def test_edge_softmax_of_scores_that_are_not_finite(name: str) -> None:
    graph = graph_called("empty rows")
    scores = np.array([[1.0], [-np.inf], [2.0], [-np.inf]], dtype=np.float32)
    found = run(name, graph, [scores], [], scores.shape)
    assert found[1, 0] == 0.0
    np.testing.assert_allclose(found[[0, 2], 0], np.exp([1.0, 2.0]) / np.exp([1.0, 2.0]).sum(), rtol=1e-6)
    assert np.isnan(found[3, 0])
    scores[0] = np.nan
    assert np.isnan(run(name, graph, [scores], [], scores.shape)[:3]).all()


@pytest.mark.parametrize("name", named("gat", native=True))
def test_gat_x_that_is_larger_than_the_caches(name: str) -> None:
    graph = graph_called("power law")
    check_gat(name, graph, *operands(graph, 3, 400))


@pytest.mark.parametrize("name", KERNELS)
def test_can_run_here(name: str) -> None:
    reason = KERNELS[name].why_not()
    if reason is not None:
        pytest.skip(reason)
