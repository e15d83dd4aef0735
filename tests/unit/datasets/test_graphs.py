"""Generated graphs: exactly the size asked for, from a seed, and of the kind that they are called."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip import InvalidArgument
from zeroskip.datasets import _generate, features, find, registry
from zeroskip.datasets._base import with_drawn_values
from zeroskip.datasets.graphs import GRAPHS, SMALL
from zeroskip.datasets.io.smtx import Structure
from zeroskip.formats import CSR

MAKERS: dict[str, Callable[..., Structure]] = {
    "power_law": _generate.power_law,
    "rmat": _generate.rmat,
    "communities": _generate.communities,
    "lattice": _generate.lattice,
    "small_graphs": partial(_generate.small_graphs, mean_nodes=12.0),
}
UNDIRECTED = ("power_law", "lattice", "small_graphs")


def made(kind: str, nodes: int, entries: int, seed: int = 0) -> CSR:
    found = MAKERS[kind](nodes, entries, np.random.default_rng(seed))
    return with_drawn_values(found, kind, seed)  # CSR checks that columns increase


def pattern(a: CSR) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = a.to_dense() != 0
    return found


@pytest.mark.parametrize("kind", MAKERS)
@given(nodes=st.integers(8, 300), share=st.floats(0, 3), seed=st.integers(0, 9))
def test_sizes_are_exact(kind: str, nodes: int, share: float, seed: int) -> None:
    entries = round(nodes * share)
    a = made(kind, nodes, entries, seed)
    assert (a.shape, a.nnz) == ((nodes, nodes), entries)
    if kind in UNDIRECTED:
        np.testing.assert_array_equal(pattern(a), pattern(a).T)


@pytest.mark.parametrize("kind", MAKERS)
def test_the_seed_decides(kind: str) -> None:
    first, same, other = made(kind, 500, 2000), made(kind, 500, 2000), made(kind, 500, 2000, 1)
    np.testing.assert_array_equal(first.indices, same.indices)
    assert (pattern(first) != pattern(other)).any()


def test_kinds_are_what_they_are_called() -> None:
    skews = {kind: features(made(kind, 20_000, 80_000))["row_skew"] for kind in MAKERS}
    assert min(skews["power_law"], skews["rmat"]) > 5 > max(skews["communities"], skews["lattice"])
    roads = features(made("lattice", 20_000, 56_000))
    assert roads["row_max"] <= 4
    assert roads["bandwidth"] == 142  # the width of the grid
    many = made("small_graphs", 20_000, 80_000)
    assert features(many)["bandwidth"] < 24
    assert features(many)["empty_rows"] < 2000  # graphs of one node
    block = made("communities", 20_000, 80_000)
    rows, columns = block.places()
    assert (rows // 64 == columns // 64).mean() == pytest.approx(0.8, abs=0.02)


def test_half_of_the_edges_of_rmat_are_in_the_first_quarter() -> None:
    rows, columns = made("rmat", 2**14, 20_000).places()
    quarters = np.bincount(2 * (rows >= 2**13) + (columns >= 2**13), minlength=4) / rows.size
    assert quarters[0] > quarters[1:3].max() > quarters[3]
    assert quarters[0] == pytest.approx(0.57, abs=0.05)  # a little less: entries that are met twice count once


@pytest.mark.parametrize("kind", MAKERS)
def test_too_many_entries_are_refused(kind: str) -> None:
    with pytest.raises(InvalidArgument, match="entries is 1000, too many for a graph of its kind with 10 nodes"):
        MAKERS[kind](10, 1000, np.random.default_rng(0))


def test_the_data_sets_have_the_sizes_of_the_survey() -> None:
    small, large = registry.get("graphs").entries(), registry.get("graphs-large").entries()
    assert len(small) + len(large) == len(GRAPHS) == 26
    assert max(one.nnz or 0 for one in small) <= SMALL < min(one.nnz or 0 for one in large)
    assert len({one.name for one in (*small, *large)}) == 26
    for one in small:
        if one.nnz is not None and one.nnz < 200_000:
            a = one.matrix()
            assert (a.shape, a.nnz) == (one.shape, one.nnz)
    (cora,) = find("graphs/power_law/cora")
    assert (cora.matrix(0).indices[:100] != cora.matrix(1).indices[:100]).any()
    assert 1 - cora.matrix().density == pytest.approx(0.998519, abs=1e-6)  # table 4
