"""Features of matrices, against loops that say what each number means."""

from __future__ import annotations

import time
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip.datasets import features
from zeroskip.datasets._features import GROUPS, SQUARES, STRIPS
from zeroskip.formats import CSR


def naive(dense: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The same from the definition, entry by entry."""
    m, k = dense.shape
    places = [(i, j) for i in range(m) for j in range(k) if dense[i, j]]
    lines = {"row": [int((row != 0).sum()) for row in dense], "col": [int((col != 0).sum()) for col in dense.T]}
    found: dict[str, Any] = {"shape": (m, k), "nnz": len(places), "density": len(places) / (m * k)}
    for name, counts in lines.items():
        mean = sum(counts) / len(counts)
        std = (sum((c - mean) ** 2 for c in counts) / len(counts)) ** 0.5
        skew = sum(((c - mean) / std) ** 3 for c in counts) / len(counts) if std else 0.0
        found |= {f"{name}_mean": mean, f"{name}_std": std, f"{name}_min": min(counts), f"{name}_max": max(counts)}
        found |= {f"{name}_skew": skew, f"empty_{name}s": counts.count(0)}
    found["sparsity"] = 1 - found["density"]
    found["bandwidth"] = max((abs(j - i) for i, j in places), default=None)
    columns = [{j for j in range(k) if row[j]} for row in dense]
    spans = [(max(row) - min(row) + 1) / k for row in columns if row]
    found["row_span"] = sum(spans) / len(spans) if spans else None
    beside = [(j - 1 in columns[i]) + (j + 1 in columns[i]) for i, j in places]
    found["neighbours"] = sum(beside) / len(beside) if beside else None
    alike = [len(a & b) / len(a | b) for a, b in pairwise(columns) if a | b]
    found["similarity"] = sum(alike) / len(alike) if alike else None
    found["block_fill"], found["blocks"] = {}, {}
    for high, wide in [(size, size) for size in SQUARES] + list(STRIPS):
        met = {(i // high, j // wide) for i, j in places}
        area = sum(dense[i * high : (i + 1) * high, j * wide : (j + 1) * wide].size for i, j in met)
        found["block_fill"][f"{high}x{wide}"] = len(places) / area if met else None
        found["blocks"][f"{high}x{wide}"] = len(met)
    found["nm"] = {}
    for n, of in GROUPS:
        groups = [row[at : at + of] for row in dense for at in range(0, k, of)]
        found["nm"][f"{n}:{of}"] = sum((group != 0).sum() <= n for group in groups) / len(groups)
    return found


@given(
    m=st.integers(1, 40), k=st.integers(1, 40), density=st.sampled_from([0, 0.02, 0.3, 0.9, 1]), seed=st.integers(0, 99)
)
def test_features_are_what_the_loops_find(m: int, k: int, density: float, seed: int) -> None:
    dense = (np.random.default_rng(seed).random((m, k)) < density).astype(np.float32)
    found = features(CSR.from_dense(dense))
    wanted = naive(dense)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if isinstance(value, dict):
            assert found[name] == pytest.approx(value), name
        elif isinstance(value, float):
            assert found[name] == pytest.approx(value, abs=1e-9), name
        else:
            assert found[name] == value, name


def test_a_wide_and_very_sparse_matrix_has_blocks_that_are_sorted() -> None:
    dense = np.zeros((100, 300), dtype=np.float32)
    dense[99, 299] = dense[0, 0] = dense[50, 7] = dense[50, 8] = 1
    found, wanted = features(CSR.from_dense(dense)), naive(dense)
    assert found["blocks"] == wanted["blocks"]
    assert found["block_fill"] == pytest.approx(wanted["block_fill"])


def test_well_known_patterns() -> None:
    half = np.tile(np.array([1, 0, 1, 0], dtype=np.float32), (8, 4))
    found = features(CSR.from_dense(half))
    assert (found["nm"]["2:4"], found["nm"]["1:4"], found["similarity"], found["neighbours"]) == (1, 0, 1, 0)
    block = np.kron(np.eye(4), np.ones((16, 16))).astype(np.float32)
    found = features(CSR.from_dense(block))
    assert (found["block_fill"]["16x16"], found["block_fill"]["32x32"], found["blocks"]["16x16"]) == (1, 0.5, 4)
    assert found["bandwidth"] == 15


def test_a_million_entries_take_seconds_at_most() -> None:
    rng = np.random.default_rng(0)
    key = np.unique(rng.integers(0, 200_000 * 200_000, size=1_000_000))
    indptr = np.searchsorted(key, np.arange(200_001, dtype=np.int64) * 200_000)
    columns = (key % 200_000).astype(np.int32)
    a = CSR((200_000, 200_000), indptr.astype(np.int64), columns, np.ones(key.size, np.float32))
    begin = time.perf_counter()
    assert features(a)["nnz"] == key.size
    assert time.perf_counter() - begin < 20
