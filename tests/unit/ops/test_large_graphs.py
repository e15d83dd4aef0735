"""Matrices that are graphs: what lays out columns in blocks, or everything, is not tried on them."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from zeroskip import KernelUnavailable, ops, plan
from zeroskip.formats import CSR
from zeroskip.kernels import registry
from zeroskip.ops.choice import candidates

NODES = 600_000
GRAPHS = next(kernel.name for kernel in registry if kernel.origin == "zeroskip")


@pytest.fixture(scope="module")
def ring() -> CSR:
    """Each node is joined to the next."""
    nodes = np.arange(NODES, dtype=np.int64)
    return CSR((NODES, NODES), np.arange(NODES + 1), ((nodes + 1) % NODES).astype(np.int32), np.ones(NODES, np.float32))


def test_no_kernel_that_would_not_fit_is_a_candidate(ring: CSR) -> None:
    for n in (1, 8, 64):
        names = [kernel.name for kernel in candidates(ring, n)]
        assert not any("dense" in name for name in names)
        assert not any(name.startswith("spmm_csr") and not name.endswith(("_n1", "_gspmm")) for name in names)
    rejected = registry.get("spmm_csr_f32_scalar").rejects(ring, 8)
    assert rejected is not None
    assert "ops.gspmm" in rejected
    assert "GB" in str(registry.get("spmm_dense_f32_numpy").rejects(ring, 8))


def test_a_layer_of_weights_is_taken_as_before() -> None:
    layer = CSR.from_dense(np.eye(64, dtype=np.float32))
    for name in ("spmm_csr_f32_scalar", "spmm_dense_f32_scalar", "spmm_bitmask_f32_scalar", "spmm_dense_f32_numpy"):
        assert registry.get(name).rejects(layer, 8) is None


def test_where_nothing_takes_it_the_error_says_what_does(ring: CSR, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((NODES, 2), dtype=np.float32)
    monkeypatch.setattr(importlib.import_module("zeroskip.ops.plan"), "candidates", lambda *args: [])
    with pytest.raises(KernelUnavailable, match=r"ops\.gspmm"):
        plan("spmm", ring, n=2, cache=False)
    monkeypatch.undo()
    np.testing.assert_array_equal(ops.gspmm(ring, x), x)


def test_spmm_of_a_graph_is_a_sum_over_edges(ring: CSR) -> None:
    x = np.arange(2 * NODES, dtype=np.float32).reshape(NODES, 2)
    bias = np.ones(NODES, dtype=np.float32)
    for out in (ops.spmm(ring, x, bias=bias), ops.spmm(ring, x, bias=bias, kernel=GRAPHS)):
        np.testing.assert_array_equal(out, np.roll(x, -1, axis=0) + 1)
    assert plan("spmm", ring, n=2, cache=False).kernel == GRAPHS


def test_a_layer_is_no_graph() -> None:
    layer = CSR.from_dense((np.random.default_rng(0).random((1200, 1200)) < 0.02).astype(np.float32))
    assert "graphs" in str(registry.get(GRAPHS).rejects(layer, 8))
    assert GRAPHS not in [kernel.name for kernel in candidates(layer, 8)]


@pytest.mark.parametrize(("degree", "n", "weighed"), [(8, 128, True), (48, 64, True), (49, 128, False), (8, 15, False)])
def test_sums_over_edges_are_weighed_for_few_entries_a_row_beside_many_columns(degree, n, weighed):
    indices = np.tile(np.arange(degree, dtype=np.int32), 512)
    indptr = np.arange(513, dtype=np.int64) * degree
    layer = CSR((512, 512), indptr, indices, np.ones(512 * degree, dtype=np.float32))
    assert (GRAPHS in [kernel.name for kernel in candidates(layer, n)]) == weighed
