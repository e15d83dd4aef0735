"""Masks that follow from queries and keys: what is kept, against plain loops, and how much of attention that is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zeroskip._errors import InvalidArgument, ShapeError, ZeroskipError
from zeroskip.formats import BSR
from zeroskip.ops.rules import Rule
from zeroskip.sparsify import attention

KINDS = ("pooled", "sparge", "vertical_slash")


def inputs(n: int = 64, m: int | None = None, d: int = 16, heads: int | None = None, seed: int = 0) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    lead = () if heads is None else (heads,)
    return (
        random.standard_normal((*lead, n, d)).astype(np.float32),
        random.standard_normal((*lead, m or n, d)).astype(np.float32),
    )


def blocks(mask: Any) -> np.ndarray:
    assert isinstance(mask, BSR)
    rows, cols = mask.shape[0] // mask.block[0], mask.shape[1] // mask.block[1]
    found = np.zeros((rows, cols), dtype=bool)
    found[np.repeat(np.arange(rows), np.diff(mask.indptr)), mask.indices] = True
    return found


def full_softmax(q: np.ndarray, k: np.ndarray, causal: bool) -> np.ndarray:
    scores = q.astype(np.float64) @ k.T.astype(np.float64) / math.sqrt(q.shape[1])
    if causal:
        scores[np.arange(len(k)) > (np.arange(len(q)) + len(k) - len(q))[:, None]] = -np.inf
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


# ---- all of them ----


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_blocks_are_whole_and_the_diagonal_is_kept(kind: str, causal: bool) -> None:
    q, k = inputs(64, 96)
    mask = attention.select(kind, q, k, block=16, causal=causal)
    assert isinstance(mask, BSR)
    assert mask.shape == (64, 96)
    assert (mask.data == 1).all()
    found = blocks(mask)
    own = np.arange(4) + 2
    assert found[np.arange(4), own].all()
    if causal:
        assert not found[np.arange(6) > own[:, None]].any()


@pytest.mark.parametrize("kind", KINDS)
def test_heads_are_those_of_single_calls_and_share_keys_in_order(kind: str) -> None:
    q, k = inputs(64, heads=4)
    several = attention.select(kind, q, k[:2], block=16)
    assert isinstance(several, list)
    for head, mask in enumerate(several):
        alone = attention.select(kind, q[head], k[head // 2], block=16)
        assert np.array_equal(blocks(mask), blocks(alone))


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_inputs_give_the_same_mask_whatever_holds_them(kind: str) -> None:
    q, k = inputs()
    first = attention.select(kind, q, k, block=16)
    wide = np.zeros((64, 32), dtype=np.float32)
    wide[:, ::2] = q
    for other in ((q, k), (wide[:, ::2], k), (q.astype(np.float64), np.asfortranarray(k))):
        assert np.array_equal(blocks(first), blocks(attention.select(kind, *other, block=16)))
    torch = pytest.importorskip("torch")
    assert np.array_equal(
        blocks(first), blocks(attention.select(kind, torch.from_numpy(q), torch.from_numpy(k), block=16))
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda q, k: (q, k[:, :8]), ShapeError, "k has 8 features a row but q has 16"),
        (lambda q, k: (q[:60], k), ShapeError, "queries is 60, it must be a multiple of block = 16"),
        (lambda q, k: (q, k[:60]), ShapeError, "keys is 60"),
        (lambda q, k: (np.stack([q] * 3), np.stack([k] * 2)), ShapeError, "q has 3 heads and k has 2"),
        (lambda q, k: (q[0], k), ShapeError, "q has shape"),
        (lambda q, k: (q[:0], k), ShapeError, "none of them 0"),
        (lambda q, k: (q, np.where(np.arange(16) == 3, np.nan, k)), InvalidArgument, "k is nan in head 0, row 0"),
        (
            lambda q, k: (np.where(np.arange(64)[:, None] == 9, np.inf, q), k),
            InvalidArgument,
            "q is inf in head 0, row 9",
        ),
        (lambda q, k: (q.astype(np.int32), k), ZeroskipError, "int32"),
        (lambda q, k: ("q", k), ZeroskipError, "str"),
    ],
)
def test_inputs_that_cannot_be_are_refused(kind: str, change: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says) as found:
        attention.select(kind, *change(*inputs()), block=16)
    assert str(found.value).startswith(f"{kind} mask")


@pytest.mark.parametrize(
    ("kind", "wrong", "says"),
    [
        ("pooled", {"keep": 0.0}, "keep is 0.0"),
        ("pooled", {"keep": 1.5}, "keep is 1.5"),
        ("pooled", {"keep": 0}, "keep is 0"),
        ("pooled", {"keep": True}, "keep is True"),
        ("sparge", {"mass": 0.0}, "mass is 0.0"),
        ("sparge", {"mass": float("nan")}, "mass is nan"),
        ("sparge", {"similarity": 1.5}, "similarity is 1.5"),
        ("vertical_slash", {"vertical": -1}, "vertical is -1"),
        ("vertical_slash", {"slash": 1.5}, "slash is 1.5"),
        ("vertical_slash", {"last": 0}, "last is 0"),
        ("magic", {}, "choose one of: pooled, sparge, vertical_slash"),
    ],
)
def test_settings_that_cannot_be_are_refused(kind: str, wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        attention.select(kind, *inputs(), **({"block": 16} | wrong))


# ---- pooled ----


@given(keep=st.one_of(st.floats(0.01, 1), st.integers(1, 9)), causal=st.booleans(), seed=st.integers(0, 5))
@settings(max_examples=30)
def test_pooled_keeps_the_best_means_of_each_row(keep: float | int, causal: bool, seed: int) -> None:
    q, k = inputs(32, 48, seed=seed)
    found = blocks(attention.select("pooled", q, k, block=8, keep=keep, causal=causal))
    means_q, means_k = q.reshape(4, 8, -1).mean(axis=1), k.reshape(6, 8, -1).mean(axis=1)
    for row in range(4):
        own = row + 2
        room = own + 1 if causal else 6
        count = math.ceil(keep * room) if isinstance(keep, float) else min(keep, room)
        assert found[row].sum() == count
        scores = means_k[:room] @ means_q[row]
        others = sorted((col for col in range(room) if col != own), key=lambda col: -scores[col])
        assert set(np.flatnonzero(found[row])) == {own, *others[: count - 1]}


# ---- sparge ----


def test_sparge_keeps_the_mass_of_the_pooled_weights() -> None:
    q, k = inputs(128, seed=3)
    weights = full_softmax(q.reshape(8, 16, -1).mean(axis=1), k.reshape(8, 16, -1).mean(axis=1), causal=False)
    for mass in (0.2, 0.5, 0.9, 1.0):
        found = blocks(attention.select("sparge", q, k, block=16, mass=mass, similarity=None))
        for row in range(8):
            order = np.argsort(-weights[row], kind="stable")
            count = int(np.searchsorted(np.cumsum(weights[row][order]), mass - 1e-9)) + 1
            assert set(np.flatnonzero(found[row])) == {row, *order[:count].tolist()}


def test_sparge_keeps_all_of_blocks_whose_rows_differ() -> None:
    random = np.random.default_rng(0)
    directions = 8 * np.eye(4, 16, dtype=np.float32)  # each block of 16 rows points one way
    q = k = np.repeat(directions, 16, axis=0)
    tight = blocks(attention.select("sparge", q, k, block=16, mass=0.5))
    assert np.array_equal(tight, np.eye(4) != 0)
    mixed = q.copy()
    mixed[16:32] = random.standard_normal((16, 16))
    by_query = blocks(attention.select("sparge", mixed, k, block=16, mass=0.5))
    assert by_query[1].all()
    assert np.array_equal(by_query[[0, 2, 3]], np.eye(4)[[0, 2, 3]] != 0)
    by_key = blocks(attention.select("sparge", q, mixed, block=16, mass=0.5))
    assert np.array_equal(by_key[[0, 2, 3]], (np.eye(4) != 0)[[0, 2, 3]] | (np.arange(4) == 1))
    assert by_key[1].tolist() == [True, True, True, False]  # what it points to has no weight; two thirds are enough
    causal = blocks(attention.select("sparge", mixed, mixed, block=16, mass=0.5, causal=True))
    assert causal[1].tolist() == [True, True, False, False]


def test_self_similarity_is_the_mean_cosine_of_all_pairs() -> None:
    from zeroskip.sparsify.attention.sparge import self_similarity

    q, _ = inputs(24)
    q[5] = 0
    found = self_similarity(q, 8)
    for block in range(3):
        rows = q[8 * block : 8 * block + 8]
        cosines = [
            float(a @ b) / (np.linalg.norm(a) * np.linalg.norm(b)) if a.any() and b.any() else 0.0
            for a in rows
            for b in rows
        ]
        assert found[block] == pytest.approx(np.mean(cosines), abs=1e-5)


# ---- vertical-slash ----


def test_vertical_slash_finds_a_column_and_a_diagonal() -> None:
    """Every query looks at key 21, and at the key 40 before it: both are planted with scores that stand out."""
    n, d = 128, 160
    q, k = np.zeros((n, d), dtype=np.float32), np.zeros((n, d), dtype=np.float32)
    q[:, 0] = 60
    k[21, 0] = 10
    for i in range(40, n):  # query i and key i - 40 share a feature of their own
        q[i, 1 + i] = k[i - 40, 1 + i] = 24
    found = blocks(attention.select("vertical_slash", q, k, block=16, vertical=1, slash=1, last=32))
    expected = np.eye(8, dtype=bool)
    expected[:, 1] = True
    for i in range(40, n):
        expected[i // 16, (i - 40) // 16] = True
    assert np.array_equal(found, np.tril(expected))


@given(
    causal=st.booleans(),
    vertical=st.integers(0, 6),
    slash=st.integers(0, 6),
    last=st.sampled_from([1, 7, 64, 500]),
    sizes=st.sampled_from([(32, 32), (32, 64), (64, 32)]),
)
@settings(max_examples=40)
def test_vertical_slash_keeps_what_plain_loops_choose(
    causal: bool, vertical: int, slash: int, last: int, sizes: tuple[int, int]
) -> None:
    (n, m), block = sizes, 8
    q, k = inputs(n, m, seed=n + m)
    found = blocks(
        attention.select("vertical_slash", q, k, block=block, vertical=vertical, slash=slash, last=last, causal=causal)
    )
    weights = np.nan_to_num(full_softmax(q, k, causal)) if not causal or n <= m else safe_softmax(q, k)
    columns: dict[int, float] = {}
    distances: dict[int, float] = {}
    for i in range(max(0, n - last), n):
        for j in range(m):
            columns[j] = columns.get(j, 0.0) + weights[i, j]
            away = i + m - n - j
            distances[away] = distances.get(away, 0.0) + weights[i, j]
    best_columns = sorted((c for c in columns if columns[c] > 0), key=lambda c: -columns[c])[:vertical]
    best_distances = sorted((a for a in distances if distances[a] > 0), key=lambda a: -distances[a])[:slash]
    expected = np.zeros((n // block, m // block), dtype=bool)
    for i in range(n):
        at = i + m - n
        for j in [*best_columns, *(at - away for away in best_distances)]:
            if 0 <= j < m:
                expected[i // block, j // block] = True
        if 0 <= at < m:
            expected[i // block, at // block] = True
    rows = np.arange(n // block)[:, None] + (m - n) // block
    if causal:
        expected &= np.arange(m // block) <= rows
    assert np.array_equal(found, expected)


def safe_softmax(q: np.ndarray, k: np.ndarray) -> np.ndarray:
    """Causal softmax where some queries see nothing: zeros there."""
    found = np.zeros((len(q), len(k)))
    for i in range(len(q)):
        seen = i + len(k) - len(q) + 1
        if seen > 0:
            found[i, :seen] = full_softmax(q[i : i + 1], k[:seen], causal=False)[0]
    return found


# ---- recall ----


@pytest.mark.parametrize("causal", [False, True])
def test_recall_is_the_share_of_the_softmax_that_is_kept(causal: bool) -> None:
    q, k = inputs(300, 320)  # more queries than are looked at in one go
    mask = attention.make("random", 300, 320, sparsity=0.7, seed=1)
    weights = full_softmax(q, k, causal)
    expected = (weights * (mask.to_dense() != 0)).sum() / 300
    assert attention.recall(mask, q, k, causal=causal) == pytest.approx(expected, rel=1e-5)
    assert attention.recall(Rule(), q, k, causal=causal) == pytest.approx(1.0, rel=1e-6)
    rule = Rule(window=20, global_tokens=3)
    same = attention.rule_mask(rule, 300, 320)
    assert attention.recall(rule, q, k, causal=causal) == pytest.approx(attention.recall(same, q, k, causal=causal))


def test_recall_of_heads_and_of_bad_masks() -> None:
    q, k = inputs(64, heads=4)
    masks = attention.select("pooled", q, k[:2], block=16, keep=0.5)
    assert isinstance(masks, list)
    found = attention.recall(masks, q, k[:2])
    assert isinstance(found, np.ndarray)
    assert found.shape == (4,)
    for head in range(4):
        assert found[head] == pytest.approx(attention.recall(masks[head], q[head], k[head // 2]))
    with pytest.raises(InvalidArgument, match="holds 3 masks but q has 4 heads"):
        attention.recall(masks[:3], q, k[:2])
    with pytest.raises(ShapeError, match=r"shape \(64, 64\) but q and k make it \(32, 64\)"):
        attention.recall(masks[0], q[0, :32], k[0])


def test_chosen_blocks_keep_more_than_as_many_drawn_ones() -> None:
    """Queries and keys that cluster by block, as far apart as they are: what selectors are for."""
    random = np.random.default_rng(2)
    n, block, d = 512, 32, 32
    centres = 3 * random.standard_normal((8, d))
    groups = random.permutation(np.repeat(np.arange(8), 2))
    rows = centres[np.repeat(groups, block)]
    q, k = (rows + 0.3 * random.standard_normal((n, d)) for _ in range(2))
    by_lot = attention.recall(attention.make("random", n, n, sparsity=0.875, block=block), q, k)
    for kind, how in (("pooled", {"keep": 2}), ("sparge", {"mass": 0.9})):
        mask = attention.select(kind, q, k, block=block, **how)
        assert isinstance(mask, BSR)
        assert mask.sparsity >= 0.875
        assert attention.recall(mask, q, k) > 0.95 > 2 * float(by_lot)
