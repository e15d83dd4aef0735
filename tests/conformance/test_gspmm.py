"""Every kernel of gspmm, ours of all instruction sets and rivals, against the float64 reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from zeroskip import KernelUnavailable, ops
from zeroskip._arrays import empty_lines
from zeroskip.formats import CSR, to_bits, to_float32
from zeroskip.kernels import ISAS, operations
from zeroskip.ops import graph_reference as reference
from zeroskip.testing import guarded, random_dense
from zeroskip.testing.graph_bounds import assert_within, gspmm_bound
from zeroskip.testing.graphs import GRAPHS

REDUCTIONS = ("sum", "mean", "max", "min")
KERNELS = {kernel.name: kernel for kernel in operations if kernel.op == "gspmm"}
USABLE = [name for name, kernel in KERNELS.items() if kernel.why_not() is None]
NATIVE = [name for name in USABLE if KERNELS[name].origin == "native"]
# Around a vector of 4, 8 and 16 lanes, and around a strip of 8 vectors.
FEATURES = (1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 72, 127, 128, 129, 200, 257)


@cache
def graph_called(name: str) -> CSR:
    return GRAPHS[name]()


def call(name: str, graph: CSR, x: np.ndarray, weights: np.ndarray | None, reduce: str) -> np.ndarray:
    """The result of a kernel, x and result at odd places of guarded memory; skips what the kernel cannot reduce."""
    source, out = guarded(x.shape, shift=1), guarded((graph.shape[0], *x.shape[1:]), shift=3)
    source.array[...] = x
    try:
        KERNELS[name].function(graph, source.array, weights, reduce, out.array)
    except KernelUnavailable as error:
        assert KERNELS[name].origin != "native"
        pytest.skip(str(error))
    assert out.intact(), "wrote outside of its output"
    assert source.intact()
    return out.array


def check(name: str, graph: CSR, x: np.ndarray, weights: np.ndarray | None, reduce: str) -> None:
    found = call(name, graph, x, weights, reduce)
    assert_within(found, reference.gspmm(graph, x, weights, reduce), gspmm_bound(graph, x, weights, reduce))


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("case", GRAPHS)
@pytest.mark.parametrize("name", USABLE)
def test_keeps_the_error_bound(
    name: str, case: str, reduce: str, record_property: Callable[[str, object], None]
) -> None:
    graph = graph_called(case)
    checks = 0
    for heads, features in ((1, 1), (1, 7), (1, 33), (3, 5), (4, 32)):
        x = random_dense((graph.shape[1], heads, features), seed=features)
        for weights in (None, random_dense((graph.nnz, heads), seed=7)):
            check(name, graph, x, weights, reduce)
            checks += 1
    record_property("isa", KERNELS[name].isa)
    record_property("checks", checks)


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("name", NATIVE)
def test_sizes_around_each_strip(name: str, features: int) -> None:
    graph = graph_called("around a block")
    x = random_dense((graph.shape[1], 1, features), seed=features)
    for reduce in REDUCTIONS:
        check(name, graph, x, random_dense((graph.nnz, 1), seed=8), reduce)
        check(name, graph, x, None, reduce)


@pytest.mark.parametrize("reduce", REDUCTIONS)
@pytest.mark.parametrize("name", NATIVE)
def test_nan_and_infinity_reach_what_their_entries_touch_and_nothing_else(name: str, reduce: str) -> None:
    graph = graph_called("int32")
    for features in (3, 8, 40):
        x = random_dense((graph.shape[1], 1, features), seed=9)
        for value, at in ((np.nan, 5), (np.inf, 11), (-np.inf, 17)):
            x[at, 0, features // 2] = value
        check(name, graph, x, None, reduce)
        check(name, graph, x, np.abs(random_dense((graph.nnz, 1), seed=10)), reduce)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", NATIVE)
def test_any_number_of_threads_and_rows_that_are_cut(name: str, threads: int) -> None:
    from zeroskip.kernels.cpu import get_num_threads, set_num_threads

    graph = graph_called("hubs")
    x = random_dense((graph.shape[1], 2, 36), seed=11)
    weights = random_dense((graph.nnz, 2), seed=12)
    before = get_num_threads()
    try:
        set_num_threads(threads)
        for reduce in REDUCTIONS:
            check(name, graph, x, weights, reduce)
            check(name, graph, x, None, reduce)
        first, second = (call(name, graph, x, weights, "sum") for _ in range(2))
    finally:
        set_num_threads(before)
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("name", NATIVE)
def test_x_that_is_larger_than_the_caches(name: str) -> None:
    """Then rows of x are asked for ahead, up to the last entry of the graph."""
    graph = graph_called("power law")
    x = random_dense((graph.shape[1], 1, 1500), seed=13)
    assert x.nbytes > 4 << 20
    check(name, graph, x, None, "sum")
    check(name, graph, x, random_dense((graph.nnz, 1), seed=14), "max")


@pytest.mark.parametrize("name", NATIVE)
@pytest.mark.parametrize(("heads", "features"), [(1, 128), (2, 64), (1, 80)])
def test_results_larger_than_the_caches_are_the_same_at_lines_and_between(name: str, heads: int, features: int) -> None:
    """Whole lines are written past the caches; a result that begins between two is not."""
    nodes = 60_000  # 31 MB each for x and the result
    graph = CSR(
        (nodes, nodes),
        np.minimum(np.arange(nodes + 1, dtype=np.int64) * 2, 100_000),  # rows at the end have no entries
        np.sort((np.arange(100_000, dtype=np.int32) * 7919 % nodes).reshape(-1, 2)).reshape(-1),
        np.ones(100_000, dtype=np.float32),
    )
    x = random_dense((nodes, heads, features), seed=1)
    for reduce in ("mean", "max"):
        found = empty_lines(x.shape), empty_lines((x.size + 1,))[1:].reshape(x.shape)
        assert [array.ctypes.data % 64 for array in found] == [0, 4]
        for out in found:
            out.fill(np.nan)
            KERNELS[name].function(graph, x, None, reduce, out)
        np.testing.assert_array_equal(*found)
        assert not found[0][50_000:].any()
        pairs = x[graph.indices[:200].reshape(-1, 2)].astype(np.float64)
        expected = pairs.mean(axis=1) if reduce == "mean" else pairs.max(axis=1)
        np.testing.assert_allclose(found[0][:100], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_x_is_widened_exactly_and_given_back_in_its_type(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    graph = graph_called("int32")
    exact = random_dense((graph.shape[1], 20), seed=15)
    values = to_float32(to_bits(exact, dtype), dtype)
    x = torch.from_numpy(exact).to(getattr(torch, dtype))
    found = ops.gspmm(graph, x)
    assert found.dtype == x.dtype
    expected = torch.from_numpy(ops.gspmm(graph, values)).to(x.dtype)
    assert torch.equal(found, expected)


def test_operands_that_are_not_contiguous() -> None:
    graph = graph_called("int32")
    x = random_dense((2 * graph.shape[1], 40), seed=16)[::2, 1:]
    weights = random_dense((graph.nnz, 2), seed=17)[:, 1]
    expected = reference.gspmm(graph, x[:, None], weights[:, None])[:, 0]
    allowed = gspmm_bound(graph, x[:, None], weights[:, None], "sum")[:, 0]
    assert_within(ops.gspmm(graph, x, weights=weights), expected, allowed)


def test_auto_takes_the_newest_native_kernel() -> None:
    from zeroskip.kernels import operation_kernel

    chosen = operation_kernel("gspmm", "gspmm", "csr", "float32")
    assert chosen.origin == "native"
    assert ISAS.index(chosen.isa) == max(ISAS.index(KERNELS[name].isa) for name in NATIVE)


@pytest.mark.parametrize("name", KERNELS)
def test_can_run_here(name: str) -> None:
    reason = KERNELS[name].why_not()
    if reason is not None:
        pytest.skip(reason)
