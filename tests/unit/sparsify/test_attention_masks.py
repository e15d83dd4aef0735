"""Masks that follow from sizes: exact counts, the kind kept, rules equal to their entries, memory for entries alone."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from zeroskip._errors import InvalidArgument, ShapeError, ZeroskipError
from zeroskip.formats import BSR, CSR
from zeroskip.ops.rules import Rule
from zeroskip.sparsify import attention
from zeroskip.sparsify.attention import _grid

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
SURVEY = ("random", "window", "global", "bigbird")
ALL = ("bigbird", "blockwise", "causal", "dilated", "global", "longformer", "random", "window")
RULED = ("causal", "dilated", "global", "longformer", "window")
# One setting of each kind that is not a sparsity.
SIZED: dict[str, dict[str, Any]] = {
    "bigbird": {"window": 2, "global_tokens": 1, "random_keys": 3},
    "blockwise": {"chunk": 8, "chunks": 2},
    "causal": {},
    "dilated": {"window": 9, "dilation": 3},
    "global": {"global_tokens": 3},
    "longformer": {"window": 4, "global_tokens": 2},
    "random": {"sparsity": 0.8},
    "window": {"window": 5},
}


def kept(mask: CSR | BSR) -> np.ndarray:
    return mask.to_dense() != 0


def dense(rule: Rule, queries: int, keys: int) -> np.ndarray:
    return rule.contains(np.arange(queries)[:, None] + keys - queries, np.arange(keys))


def same(a: CSR | BSR, b: CSR | BSR) -> bool:
    return all(np.array_equal(a.arrays()[name], b.arrays()[name]) for name in a.arrays())


# ---- exact counts ----


@pytest.mark.parametrize("n", [512, 1024, 2048])
@pytest.mark.parametrize("kind", SURVEY)
def test_the_survey_masks_have_exactly_the_entries_that_their_sparsity_leaves(kind: str, n: int) -> None:
    for sparsity in SPARSITIES:
        mask = attention.make(kind, n, n, sparsity=sparsity, seed=3)
        assert isinstance(mask, CSR)
        assert mask.shape == (n, n)
        assert mask.nnz == round((1 - sparsity) * n * n)
        assert mask.indices.dtype == np.uint16
        assert (mask.data == 1).all()
        assert attention.registry.get(kind).entries(n, n, sparsity=sparsity) == mask.nnz


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["window", "global", "longformer"])
def test_a_mask_of_a_sparsity_lies_between_two_neighbours_of_its_kind(kind: str, causal: bool, sparsity: float) -> None:
    n = 192
    assume_possible = round((1 - sparsity) * n * n) <= n * (n + 1) // 2 or not causal
    if not assume_possible:
        with pytest.raises(InvalidArgument, match="choose a sparsity"):
            attention.make(kind, n, n, sparsity=sparsity, causal=causal)
        return
    mask = kept(attention.make(kind, n, n, sparsity=sparsity, causal=causal, seed=1))
    inner = attention.rule(kind, n, n, sparsity=sparsity, causal=causal)
    assert inner.window is not None
    outer = (
        Rule(window=0, global_tokens=inner.global_tokens + 1, causal=causal)
        if kind == "global"
        else Rule(window=inner.window + 1, global_tokens=inner.global_tokens, causal=causal)
    )
    assert mask[dense(inner, n, n)].all()
    assert not mask[~dense(outer, n, n)].any()
    assert dense(outer, n, n).sum() > mask.sum() >= dense(inner, n, n).sum()


@given(
    kind=st.sampled_from(ALL),
    sizes=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sparsity=st.floats(0, 0.999),
    causal=st.booleans(),
    block=st.sampled_from([1, 1, 2, 4]),
    seed=st.integers(0, 3),
)
def test_whatever_is_asked_is_exact_or_refused_as_it_was_foretold(
    kind: str, sizes: tuple[int, int], sparsity: float, causal: bool, block: int, seed: int
) -> None:
    rows, cols = sizes
    settings: dict[str, Any] = {"sparsity": sparsity, "causal": causal or kind == "causal", "block": block}
    method = attention.registry.get(kind)
    given_sizes = {"chunk": 4} if kind == "blockwise" else {}
    refusal: ZeroskipError | None = None
    try:
        foretold = method.entries(rows * block, cols * block, **settings, **given_sizes)
    except ZeroskipError as error:
        refusal = error
    if refusal is not None:
        with pytest.raises(type(refusal)) as found:
            method.make(rows * block, cols * block, seed=seed, **settings, **given_sizes)
        assert str(found.value) == str(refusal)
        return
    mask = method.make(rows * block, cols * block, seed=seed, **settings, **given_sizes)
    assert mask.shape == (rows * block, cols * block)
    assert mask.nnz == foretold * block**2 == round((1 - sparsity) * rows * cols) * block**2
    assert isinstance(mask, CSR if block == 1 else BSR)
    if settings["causal"]:
        grid = kept(mask).reshape(rows, block, cols, block).any(axis=(1, 3))
        assert not grid[np.arange(cols) > (np.arange(rows) + cols - rows)[:, None]].any()


def test_blocks_are_the_grid_of_entries_made_larger() -> None:
    for kind in ALL:
        settings = SIZED[kind] | ({"causal": True} if kind == "causal" else {})
        fine = kept(attention.make(kind, 16, 32, seed=5, **settings))
        coarse = attention.make(kind, 64, 128, seed=5, block=4, **settings)
        assert isinstance(coarse, BSR)
        assert coarse.block == (4, 4)
        assert (coarse.data == 1).all()
        assert np.array_equal(kept(coarse), np.kron(fine, np.ones((4, 4))) != 0)


# ---- what each kind promises ----


@pytest.mark.parametrize("kind", ALL)
def test_the_same_seed_gives_the_same_mask_and_another_seed_another(kind: str) -> None:
    settings = {"sparsity": 0.7, "causal": kind == "causal"} | ({"chunk": 8} if kind == "blockwise" else {})
    first, again, other = (attention.make(kind, 64, 64, seed=seed, **settings) for seed in (7, 7, 8))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in ("random", "bigbird")])
def test_sizes_leave_nothing_to_the_seed(kind: str) -> None:
    assert same(
        attention.make(kind, 32, 48, seed=1, **SIZED[kind]), attention.make(kind, 32, 48, seed=2, **SIZED[kind])
    )


@pytest.mark.parametrize("kind", ["dilated", "global", "longformer", "window"])
def test_rules_are_symmetric_unless_causal(kind: str) -> None:
    mask = kept(attention.make(kind, 50, 50, **SIZED[kind]))
    assert np.array_equal(mask, mask.T)
    assert mask.diagonal().all()
    lower = kept(attention.make(kind, 50, 50, causal=True, **SIZED[kind]))
    assert np.array_equal(lower, np.tril(mask))


def test_causal_is_the_triangle_and_thinned_keeps_the_diagonal() -> None:
    assert np.array_equal(kept(attention.make("causal", 20, 20)), np.tril(np.ones((20, 20))) != 0)
    assert np.array_equal(kept(attention.make("causal", 2, 5)), np.tril(np.ones((2, 5)), 3) != 0)
    thin = kept(attention.make("causal", 40, 40, sparsity=0.9))
    assert thin.diagonal().all()
    assert not np.triu(thin, 1).any()
    assert thin.sum() == 160


def test_blockwise_rows_see_whole_chunks_and_their_own() -> None:
    mask = kept(attention.make("blockwise", 64, 64, chunk=16, chunks=2))
    grid = mask.reshape(4, 16, 4, 16)
    assert np.array_equal(grid.all(axis=(1, 3)), grid.any(axis=(1, 3)))
    expected = np.eye(4) + np.roll(np.eye(4), -1, axis=1)
    assert np.array_equal(grid.all(axis=(1, 3)), expected != 0)
    causal = kept(attention.make("blockwise", 64, 64, chunk=16, chunks=2, causal=True))
    own_and_before = np.kron(np.eye(4) + np.eye(4, k=-1), np.ones((16, 16))) != 0
    assert np.array_equal(causal, np.tril(own_and_before))


def test_blockwise_of_a_sparsity_splits_one_chunk_at_most() -> None:
    for sparsity in (0.5, 0.63, 0.7, 0.8):
        grid = kept(attention.make("blockwise", 64, 64, chunk=8, sparsity=sparsity, seed=2)).reshape(8, 8, 8, 8)
        fill = grid.sum(axis=(1, 3))
        assert ((fill > 0) & (fill < 64)).sum() <= 1
        assert (fill.diagonal() == 64).all()


def test_every_query_of_bigbird_has_as_many_random_keys() -> None:
    mask = kept(attention.make("bigbird", 128, 128, window=2, global_tokens=2, random_keys=5, seed=4))
    base = dense(Rule(window=2, global_tokens=2), 128, 128)
    assert mask[base].all()
    more = (mask & ~base).sum(axis=1)
    assert (more[:2] == 0).all()  # the global queries see all already
    assert (more[2:] == 5).all()
    exact = kept(attention.make("bigbird", 128, 128, window=2, global_tokens=2, sparsity=0.9, seed=4))
    spread = (exact & ~base).sum(axis=1)[2:]
    assert spread.max() - spread.min() <= 1
    assert exact.sum() == 1638


def test_bigbird_shares_its_entries_out_as_the_paper_does() -> None:
    n = 2048
    mask = kept(attention.make("bigbird", n, n, sparsity=0.9, seed=0))
    tokens = int(mask.all(axis=0).sum())
    assert mask[:tokens].all()
    share_of_global = 2 * tokens * n / mask.sum()
    assert abs(share_of_global - 2 / 8) < 0.02
    band = next(away for away in range(n) if not mask.diagonal(away).all()) * 2 - 1
    assert abs(band * n / mask.sum() - 3 / 8) < 0.05


def test_random_places_are_equally_likely() -> None:
    counts = np.zeros((12, 12))
    for seed in range(400):
        counts += kept(attention.make("random", 12, 12, sparsity=0.75, seed=seed))
    # 36 of 144 places, 400 times: 100 each, with a standard deviation of sqrt(400 * 0.25 * 0.75) = 8.7.
    assert abs(counts.mean() - 100) < 1e-9
    assert np.abs(counts - 100).max() < 5 * 8.7
    assert 0.8 * 8.7 < counts.std() < 1.2 * 8.7


@pytest.mark.parametrize(("population", "count"), [(1, 0), (1, 1), (10, 3), (10, 10), (10**12, 500), (1000, 999)])
def test_draws_are_different_sorted_and_within(population: int, count: int) -> None:
    found = _grid.draw(np.random.default_rng(0), population, count)
    assert found.size == count
    assert (np.diff(found) > 0).all()
    assert not count or (found[0] >= 0 and found[-1] < population)


# ---- rules ----

rules = st.builds(
    Rule,
    window=st.none() | st.integers(0, 30),
    dilation=st.integers(1, 5),
    global_tokens=st.integers(0, 8),
    causal=st.booleans(),
)


@given(rule=rules, queries=st.integers(1, 40), more=st.integers(0, 30))
def test_a_rule_contains_exactly_the_entries_of_its_mask(rule: Rule, queries: int, more: int) -> None:
    keys = queries + more
    mask = attention.rule_mask(rule, queries, keys)
    assert isinstance(mask, CSR)
    assert np.array_equal(kept(mask), dense(rule, queries, keys))
    assert mask.nnz == dense(rule, queries, keys).sum()


@given(rule=rules, queries=st.integers(1, 150), more=st.integers(0, 100))
def test_a_rule_is_described_as_its_mask(rule: Rule, queries: int, more: int) -> None:
    keys = queries + more
    assert attention.describe(rule, queries, keys) == attention.describe(attention.rule_mask(rule, queries, keys))


def test_a_rule_wants_a_key_for_each_query() -> None:
    for call in (
        lambda: attention.rule_mask(Rule(window=1), 5, 4),
        lambda: attention.describe(Rule(window=1), 5, 4),
        lambda: attention.make("bigbird", 5, 4),
        lambda: attention.recall(Rule(window=1), np.ones((5, 2)), np.ones((4, 2))),
    ):
        with pytest.raises(InvalidArgument, match="there are 5 queries and 4 keys"):
            call()


@pytest.mark.parametrize("kind", RULED)
def test_a_kind_that_is_a_rule_says_the_same_in_both_forms(kind: str) -> None:
    rule = attention.rule(kind, 40, 60, **SIZED[kind])
    assert np.array_equal(kept(attention.make(kind, 40, 60, **SIZED[kind])), dense(rule, 40, 60))
    assert kind in attention.ruled()


@pytest.mark.parametrize("kind", ["random", "bigbird", "blockwise"])
def test_a_kind_that_is_no_rule_says_so(kind: str) -> None:
    assert kind not in attention.ruled()
    with pytest.raises(InvalidArgument, match=r"follows from no rule; use make, or one of: .*window"):
        attention.rule(kind, 64, 64, sparsity=0.9)


def test_a_rule_for_a_sparsity_is_the_largest_that_is_not_above_it() -> None:
    n = 4096
    for sparsity in SPARSITIES:
        rule = attention.rule("window", n, n, sparsity=sparsity)
        assert rule.window is not None
        wanted = round((1 - sparsity) * n * n)
        found = attention.describe(rule, n, n)["nnz"]
        wider = attention.describe(Rule(window=rule.window + 1), n, n)["nnz"]
        assert found <= wanted < wider


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"window": -1}, "window"),
        ({"window": 1.5}, "window"),
        ({"dilation": 0}, "dilation"),
        ({"global_tokens": -2}, "global_tokens"),
    ],
)
def test_a_rule_of_impossible_numbers_is_refused(settings: dict[str, Any], names: str) -> None:
    with pytest.raises(InvalidArgument, match=names):
        Rule(**settings)


# ---- memory ----


def peak_bytes(call: Any) -> tuple[int, Any]:
    tracemalloc.start()
    try:
        found = call()
        return tracemalloc.get_traced_memory()[1], found
    finally:
        tracemalloc.stop()


def test_a_window_over_64k_takes_memory_for_its_entries_alone() -> None:
    n = 65536
    used, mask = peak_bytes(lambda: attention.make("window", n, n, window=16))
    assert mask.nnz == 33 * n - 16 * 17
    assert used < 64 * mask.nnz  # the matrix would have 4 GiB as bools, this is 132 MiB


def test_an_exact_sparsity_over_64k_takes_memory_for_its_entries_alone() -> None:
    n = 65536
    for kind in ("window", "random"):
        used, mask = peak_bytes(lambda kind=kind: attention.make(kind, n, n, sparsity=0.9998))
        assert mask.nnz == round((1 - 0.9998) * n * n)
        assert used < 96 * mask.nnz


def test_describing_a_long_rule_makes_no_entries() -> None:
    n = 1 << 16
    used, found = peak_bytes(lambda: attention.describe(Rule(window=1000, global_tokens=10, causal=True), n, n))
    assert found["row_max"] == 1011
    assert used < 2**25


def test_what_does_not_fit_is_refused_with_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_grid, "total_bytes", lambda: 2**20)
    for kind in ALL:
        settings = {"causal": True} if kind == "causal" else {"sparsity": 0.5}
        with pytest.raises(InvalidArgument, match=r"entries of 1024 x 1024 take .* GiB to make"):
            attention.make(kind, 1024, 1024, **settings)


# ---- describe ----


def test_describe_counts_rows_and_blocks() -> None:
    places = np.zeros((70, 100), dtype=np.float32)
    places[0, :] = 1
    places[16:32, 16:32] = 1
    places[69, 99] = 1
    found = attention.describe(CSR.from_dense(places))
    nnz = 100 + 256 + 1
    assert found["shape"] == (70, 100)
    assert found["nnz"] == nnz
    assert found["sparsity"] == 1 - nnz / 7000
    assert found["row_mean"] == pytest.approx(nnz / 70)
    assert found["row_std"] == pytest.approx(places.sum(axis=1).std())
    assert (found["row_min"], found["row_max"], found["empty_rows"]) == (0, 100, 52)
    # 16 x 16: the first row of blocks (16 x 100 places), one full block, and the corner of 6 x 4.
    assert found["blocks"] == {"16": 9, "32": 5, "64": 3}
    assert found["block_fill"]["16"] == pytest.approx(nnz / (1600 + 256 + 24))
    assert found["block_fill"]["32"] == pytest.approx(nnz / (3200 + 6 * 4))
    assert found["block_fill"]["64"] == pytest.approx(nnz / (6400 + 6 * 36))


def test_describe_of_nothing_and_of_blocks() -> None:
    empty = attention.describe(CSR.from_dense(np.zeros((20, 20), dtype=np.float32)))
    assert (empty["nnz"], empty["empty_rows"], empty["block_fill"]["16"]) == (0, 20, None)
    blocks = attention.describe(attention.make("random", 128, 128, sparsity=0.75, block=32))
    assert blocks["block_fill"] == {
        "16": 1.0,
        "32": 1.0,
        "64": pytest.approx(blocks["nnz"] / blocks["blocks"]["64"] / 4096),
    }
    assert blocks["nnz"] == 4096


def test_describe_of_a_rule_wants_its_sizes() -> None:
    with pytest.raises(InvalidArgument, match="pass both"):
        attention.describe(Rule(window=1))


# ---- bad input ----


@pytest.mark.parametrize(
    ("kind", "sizes", "settings", "says"),
    [
        ("window", (100, 100), {"sparsity": 0.999}, r"leaves 10 of 100 x 100, .* from 100 to 10000 .*from 0 to 0\.99"),
        ("dilated", (100, 100), {"sparsity": 0.1, "dilation": 4}, "a smaller dilation"),
        ("longformer", (64, 64), {"sparsity": 0.9, "global_tokens": 8}, "another number than global_tokens = 8"),
        ("bigbird", (64, 64), {"sparsity": 0.99}, "choose a sparsity"),
        ("blockwise", (64, 64), {"sparsity": 0.9, "chunk": 32}, "another size than chunk = 32"),
        ("causal", (64, 64), {"sparsity": 0.3}, "choose a sparsity from 0.4"),
        ("random", (64, 64), {"sparsity": 0.3, "causal": True}, "leave causal out"),
        ("window", (64, 64), {}, "none of window, sparsity is given"),
        ("window", (64, 64), {"window": 3, "sparsity": 0.5}, "window and sparsity are both given"),
        ("bigbird", (64, 64), {"random_keys": 3, "sparsity": 0.5}, "leave one out"),
        ("random", (64, 64), {}, "sparsity is None"),
        ("window", (64, 64), {"sparsity": 90}, r"90 % is written 0\.9"),
        ("window", (64, 64), {"sparsity": float("nan")}, r"outside \[0, 1\)"),
        ("window", (64, 64), {"sparsity": 1.0}, r"outside \[0, 1\)"),
        ("window", (64, 64), {"sparsity": True}, "not a number"),
        ("window", (64, 64), {"window": -1}, "window is -1"),
        ("window", (64, 64), {"window": 2.0}, "window is 2.0"),
        ("dilated", (64, 64), {"window": 2, "dilation": 0}, "dilation is 0"),
        ("global", (64, 64), {"global_tokens": -1}, "global_tokens is -1"),
        ("bigbird", (64, 64), {"random_keys": -1}, "random_keys is -1"),
        ("blockwise", (64, 64), {"chunk": 8, "chunks": 0}, "chunks is 0"),
        ("causal", (64, 64), {"causal": False}, "this kind is causal"),
        ("window", (0, 64), {"window": 1}, "queries is 0"),
        ("window", (64, 64.5), {"window": 1}, "keys is 64.5"),
        ("window", (64, 64), {"window": 1, "seed": -1}, "seed is -1"),
        ("window", (64, 64), {"window": 1, "seed": "x"}, "seed is 'x'"),
        ("window", (64, 64), {"window": 1, "block": 0}, "block is 0"),
        ("blockwise", (64, 32), {"chunk": 8, "chunks": 1}, "its own chunk of keys"),
        ("nothing", (64, 64), {}, "choose one of: bigbird, blockwise, causal"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    kind: str, sizes: tuple[Any, Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidArgument, match=says) as found:
        attention.make(kind, *sizes, **settings)
    assert "\n" not in str(found.value)


def test_sizes_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ShapeError, match="keys is 100, it must be a multiple of block = 16"):
        attention.make("window", 64, 100, window=1, block=16)
    with pytest.raises(ShapeError, match="chunk is 48, it must divide"):
        attention.make("blockwise", 64, 64, chunk=48, chunks=1)


def test_a_thinned_triangle_is_no_rule() -> None:
    with pytest.raises(InvalidArgument, match="no rule"):
        attention.rule("causal", 64, 64, sparsity=0.9)


@given(sparsity=st.floats(0.0, 0.99), n=st.integers(2, 40))
def test_the_sparsities_that_a_message_offers_can_be_had(sparsity: float, n: int) -> None:
    try:
        attention.make("dilated", n, n, dilation=3, sparsity=sparsity)
        assume(False)
    except InvalidArgument as error:
        words = str(error).split("choose a sparsity from ")
        assume(len(words) == 2)
        low, high = words[1].split(", or")[0].split(" to ")
    for offered in (float(low), float(high)):
        mask = attention.make("dilated", n, n, dilation=3, sparsity=offered)
        assert mask.nnz == round((1 - offered) * n * n)
