"""Patterns, and the mask they make of scores: the promised sparsity, exactly, whatever the scores."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from zeroskip._errors import InvalidArgument, ShapeError  # noqa: E402
from zeroskip.formats import VNM  # noqa: E402
from zeroskip.sparsify import Pattern, mask_from_scores  # noqa: E402


@pytest.mark.parametrize("text", ["unstructured", "2:4", "8:16", "3:7", "block:16x1", "block:4x8", "vnm:16x2:8"])
def test_a_pattern_is_written_as_it_is_read(text: str) -> None:
    assert str(Pattern.parse(text)) == text
    assert Pattern.parse(Pattern.parse(text)) == Pattern.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "4:4",
        "5:4",
        "0:4",
        "2:",
        "block:0x1",
        "block:4",
        "random",
        "",
        "2:4:8",
        "-1:4",
        "vnm:0x2:8",
        "vnm:16x5:8",
        "vnm:16x2:4",
        "vnm:16x0:8",
        "vnm:2:8",
        "vnm:16x2",
    ],
)
def test_a_pattern_that_is_none_is_refused_by_its_name(text: str) -> None:
    with pytest.raises(InvalidArgument, match="pattern"):
        Pattern.parse(text)


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, 1.5, 60, float("nan"), float("inf"), "half", True])
def test_sparsity_outside_its_range_is_refused(sparsity: object) -> None:
    with pytest.raises(InvalidArgument, match="sparsity"):
        mask_from_scores(torch.rand(4, 4), sparsity=sparsity)  # type: ignore[call-overload]


def test_percent_is_recognised_in_the_message() -> None:
    with pytest.raises(InvalidArgument, match=r"60 % is written 0\.6"):
        Pattern.parse("unstructured").sparsity_or_default(60)


def test_less_than_nm_drops_is_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"at least 0\.5"):
        mask_from_scores(torch.rand(4, 8), sparsity=0.3, pattern="2:4")


@pytest.mark.parametrize(
    ("pattern", "shape"),
    [("2:4", (4, 6)), ("block:3x1", (4, 6)), ("block:1x4", (4, 6)), ("vnm:4x2:8", (6, 16)), ("vnm:2x2:6", (4, 16))],
)
def test_a_pattern_that_does_not_divide_is_refused(pattern: str, shape: tuple[int, int]) -> None:
    with pytest.raises(ShapeError, match=pattern):
        mask_from_scores(torch.rand(shape), pattern=pattern)


def test_unknown_scope_and_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="layer, row, global"):
        mask_from_scores(torch.rand(4, 4), scope="column")
    with pytest.raises(InvalidArgument, match="NaN"):
        mask_from_scores(torch.full((4, 4), float("nan")))


@given(
    rows=st.integers(1, 24),
    cols=st.integers(1, 40),
    sparsity=st.floats(0, 0.99),
    scope=st.sampled_from(["layer", "row", "global"]),
    levels=st.integers(1, 5),
)
@settings(max_examples=150, deadline=None)
def test_unstructured_drops_exactly_what_was_promised(
    rows: int, cols: int, sparsity: float, scope: str, levels: int
) -> None:
    scores = torch.randint(0, levels, (rows, cols), generator=torch.Generator().manual_seed(rows * cols)).float()
    mask = mask_from_scores(scores, sparsity=sparsity, scope=scope)
    assert int((~mask).sum()) == int(sparsity * rows * cols + 0.5)
    if scope == "row":
        dropped = (~mask).sum(1)
        assert int(dropped.max() - dropped.min()) <= 1
    else:  # no dropped entry scores above a kept one, and of equal ones the first went
        kept, gone = scores[mask], scores[~mask]
        if len(kept) and len(gone):
            assert gone.max() <= kept.min()
            edge = torch.nonzero((scores == gone.max()).flatten()).flatten()
            assert mask.flatten()[edge].int().diff().ge(0).all()


@given(
    n=st.integers(1, 7),
    extra=st.integers(1, 9),
    rows=st.integers(1, 9),
    groups=st.integers(1, 6),
    levels=st.integers(1, 4),
)
@settings(max_examples=100, deadline=None)
def test_nm_keeps_exactly_n_of_each_m_and_the_best(n: int, extra: int, rows: int, groups: int, levels: int) -> None:
    m = n + extra
    scores = torch.randint(0, levels, (rows, groups * m), generator=torch.Generator().manual_seed(n)).float()
    mask = mask_from_scores(scores, pattern=f"{n}:{m}").reshape(-1, m)
    assert (mask.sum(1) == n).all()
    parts = scores.reshape(-1, m)
    best = parts.sort(dim=1, descending=True).values[:, :n].sum(1)
    assert torch.equal((parts * mask).sum(1), best)


@given(
    v=st.integers(1, 4),
    n=st.integers(1, 4),
    m=st.integers(5, 12),
    blocks=st.integers(1, 4),
    groups=st.integers(1, 4),
    levels=st.integers(1, 6),
)
@settings(max_examples=100, deadline=None)
def test_vnm_keeps_the_best_columns_of_a_block_and_the_best_of_them_in_each_row(
    v: int, n: int, m: int, blocks: int, groups: int, levels: int
) -> None:
    generator = torch.Generator().manual_seed(v * m + n)
    scores = torch.randint(0, levels, (blocks * v, groups * m), generator=generator).float()
    mask = mask_from_scores(scores, pattern=f"vnm:{v}x{n}:{m}")
    assert (mask.reshape(-1, m).sum(1) == n).all()
    for i in range(blocks):
        for g in range(groups):
            part = scores[i * v : i * v + v, g * m : g * m + m]
            kept = mask[i * v : i * v + v, g * m : g * m + m]
            # Of equal sums the first go, as of equal scores.
            four = sorted(range(m), key=lambda column: (float(part[:, column].sum()), column))[-4:]
            assert set(kept.any(0).nonzero().flatten().tolist()) <= set(four)
            best = part[:, four].sort(dim=1, descending=True).values[:, :n].sum(1)
            assert torch.equal((part * kept).sum(1), best)


@pytest.mark.parametrize("scope", ["layer", "row", "global"])
def test_vnm_fits_its_format_at_any_sparsity(scope: str) -> None:
    weight = torch.randn(32, 64)
    for sparsity in (None, 0.75, 0.83):
        mask = mask_from_scores(weight.abs(), sparsity=sparsity, pattern="vnm:16x2:8", scope=scope)
        assert int((~mask).sum()) == round((sparsity or 0.75) * weight.numel())
        a = VNM.from_dense(weight * mask, v=16, n=2, m=8)
        assert torch.equal(torch.from_numpy(a.to_dense()), weight * mask)


def test_vnm_of_one_row_is_nm() -> None:
    """A block of one row keeps its four best columns, so the N best of a row are the N best of the group."""
    scores = torch.rand(16, 48, generator=torch.Generator().manual_seed(0))
    for n in range(1, 5):
        assert torch.equal(mask_from_scores(scores, pattern=f"vnm:1x{n}:8"), mask_from_scores(scores, pattern=f"{n}:8"))


@pytest.mark.parametrize("scope", ["layer", "row", "global"])
def test_nm_above_its_own_sparsity_keeps_both_promises(scope: str) -> None:
    mask = mask_from_scores(torch.rand(32, 64), sparsity=0.7, pattern="2:4", scope=scope)
    assert int(mask.reshape(-1, 4).sum(1).max()) <= 2
    assert int((~mask).sum()) == round(0.7 * 32 * 64)


@pytest.mark.parametrize("scope", ["layer", "row", "global"])
@pytest.mark.parametrize("block", [(16, 1), (1, 8), (4, 4), (3, 5)])
def test_blocks_go_whole_and_the_weakest_first(block: tuple[int, int], scope: str) -> None:
    r, c = block
    scores = torch.rand(r * 6, c * 10)
    mask = mask_from_scores(scores, sparsity=0.55, pattern=f"block:{r}x{c}", scope=scope)
    tiles = mask.reshape(6, r, 10, c).sum((1, 3))
    assert set(tiles.unique().tolist()) <= {0, r * c}
    assert int((tiles == 0).sum()) == 33
    if scope != "row":
        sums = scores.reshape(6, r, 10, c).sum((1, 3))
        assert sums[tiles == 0].max() <= sums[tiles > 0].min()


def test_global_shares_one_threshold_between_layers() -> None:
    weak, strong = torch.rand(8, 8) * 0.1, torch.rand(8, 8) + 1
    first, second = mask_from_scores([weak, strong], sparsity=0.5, scope="global")
    assert not first.any()
    assert second.all()


def test_ties_are_broken_by_position() -> None:
    mask = mask_from_scores(torch.ones(2, 4), sparsity=0.5)
    assert mask.tolist() == [[False] * 4, [True] * 4]
