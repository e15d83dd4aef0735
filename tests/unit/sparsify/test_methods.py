"""Every registered method: the promised sparsity and pattern; and of each what makes it what it is."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from zeroskip._errors import InvalidArgument, ShapeError  # noqa: E402
from zeroskip.sparsify import InputStats, Pattern, mask_from_scores, registry  # noqa: E402

METHODS = registry.names()
PATTERNS = ["unstructured", "2:4", "8:16", "1:3", "block:16x1", "block:1x8", "block:4x4", "vnm:16x2:8", "vnm:4x3:6"]


def correlated(tokens: int, features: int, *, seed: int = 0) -> torch.Tensor:
    """Inputs whose features say much about each other, as those of a network do."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(features // 4, features, generator=generator)
    return torch.randn(tokens, features // 4, generator=generator) @ mix + 0.3 * torch.randn(
        tokens, features, generator=generator
    )


def stats_of(x: torch.Tensor) -> InputStats:
    stats = InputStats(x.shape[1], full=True)
    for part in x.split(100):
        stats.add(part)
    return stats


def layer(rows: int = 48, cols: int = 144) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(rows, cols, generator=torch.Generator().manual_seed(1)), correlated(600, cols)


def test_all_four_methods_are_registered() -> None:
    assert {"random", "magnitude", "wanda", "sparsegpt"} <= set(METHODS)
    assert not registry.unavailable


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [None, 0.55, 0.8])
def test_promised_sparsity_and_pattern(method: str, pattern: str, sparsity: float | None) -> None:
    weight, x = layer()
    parsed = Pattern.parse(pattern)
    if sparsity is not None and sparsity < parsed.min_sparsity:
        pytest.skip(f"{pattern} drops more than {sparsity} by itself")
    pruner = registry.get(method)
    for scope in pruner.scopes:
        before = weight.clone()
        done = pruner.prune(weight, stats_of(x), sparsity=sparsity, pattern=pattern, scope=scope, seed=3)
        assert torch.equal(weight, before), "the weight that was passed is changed"
        assert done.mask.dtype == torch.bool
        assert (done.weight[~done.mask] == 0).all()
        assert (done.weight[done.mask] != 0).all()
        wanted = parsed.sparsity_or_default(sparsity)
        unit = parsed.rows * parsed.cols
        assert int((~done.mask).sum()) == unit * int(wanted * weight.numel() / unit + 0.5)
        if parsed.grouped:
            assert int(done.mask.reshape(-1, parsed.m).sum(1).max()) <= parsed.n
        if parsed.kind == "vnm":
            used = done.mask.reshape(48 // parsed.v, parsed.v, 144 // parsed.m, parsed.m).any(1).sum(-1)
            assert int(used.max()) <= 4
        if parsed.kind == "block":
            tiles = done.mask.reshape(48 // parsed.rows, parsed.rows, 144 // parsed.cols, parsed.cols).sum((1, 3))
            assert set(tiles.unique().tolist()) <= {0, unit}


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_dropped_at_sparsity_zero(method: str) -> None:
    weight, x = layer()
    done = registry.get(method).prune(weight, stats_of(x), sparsity=0.0, pattern="unstructured", scope=None, seed=0)
    assert done.mask.all()
    torch.testing.assert_close(done.weight, weight)


@pytest.mark.parametrize("method", METHODS)
def test_bad_arguments_are_refused(method: str) -> None:
    weight, x = layer()
    pruner = registry.get(method)
    with pytest.raises(InvalidArgument, match="scope"):
        pruner.prune(weight, stats_of(x), sparsity=0.5, pattern="unstructured", scope="column", seed=0)
    with pytest.raises(ShapeError, match="5"):
        pruner.prune(weight, stats_of(x), sparsity=None, pattern="2:5", scope=None, seed=0)
    if pruner.needs != "nothing":
        with pytest.raises(InvalidArgument, match="calibration"):
            pruner.prune(weight, None, sparsity=0.5, pattern="unstructured", scope=None, seed=0)
        with pytest.raises(InvalidArgument, match="features"):
            pruner.prune(weight[:, :-1], stats_of(x), sparsity=0.5, pattern="unstructured", scope=None, seed=0)


def test_unknown_method_lists_the_known() -> None:
    with pytest.raises(InvalidArgument, match="magnitude"):
        registry.get("obd")


def test_nan_in_calibration_is_one_clear_error() -> None:
    x = torch.randn(10, 8)
    x[3, 2] = float("nan")
    with pytest.raises(InvalidArgument, match="calibration activations hold NaN"):
        InputStats(8, full=False).add(x)


def test_statistics_are_the_sums_they_claim_to_be() -> None:
    x = correlated(300, 16)
    stats = stats_of(x)
    assert stats.tokens == 300
    torch.testing.assert_close(stats.gram, x.T @ x, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(stats.squares, x.square().sum(0), rtol=1e-4, atol=1e-3)


def test_magnitude_is_its_definition() -> None:
    weight, _ = layer(16, 32)
    done = registry.get("magnitude").prune(weight, None, sparsity=0.5, pattern="unstructured", scope="layer", seed=0)
    assert torch.equal(done.mask, weight.abs() > weight.abs().flatten().sort().values[16 * 32 // 2 - 1])
    assert torch.equal(done.weight, weight * done.mask)


def test_wanda_is_its_definition() -> None:
    weight, x = layer(16, 32)
    done = registry.get("wanda").prune(weight, stats_of(x), sparsity=0.5, pattern="unstructured", scope=None, seed=0)
    score = weight.abs() * x.norm(dim=0)
    for row in range(16):
        kept = set(score[row].argsort(descending=True)[:16].tolist())
        assert set(torch.nonzero(done.mask[row]).flatten().tolist()) == kept
    assert torch.equal(done.weight, weight * done.mask)


def test_random_follows_its_seed() -> None:
    weight, _ = layer()
    masks = [
        registry.get("random").prune(weight, None, sparsity=0.5, pattern="unstructured", scope=None, seed=seed).mask
        for seed in (0, 0, 1)
    ]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("pattern", PATTERNS)
def test_sparsegpt_beats_the_others_on_correlated_inputs(pattern: str) -> None:
    weight, x = layer()
    stats = stats_of(x)
    sparsity = max(0.7, Pattern.parse(pattern).min_sparsity)

    def lost(method: str) -> float:
        done = registry.get(method).prune(weight, stats, sparsity=sparsity, pattern=pattern, scope=None, seed=0)
        return float((x @ (weight - done.weight).T).square().sum())

    best = lost("sparsegpt")
    assert best < 0.7 * lost("magnitude")
    assert best < 0.8 * lost("wanda")


def textbook_sparsegpt(weight: torch.Tensor, x: torch.Tensor, *, sparsity: float, width: int = 128) -> torch.Tensor:
    """Algorithm 1 of the paper, written down as it stands, in float64."""
    w = weight.double().clone()
    h = x.double().T @ x.double()
    h += 0.01 * h.diagonal().mean() * torch.eye(len(h), dtype=torch.float64)
    u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    for start in range(0, w.shape[1], width):
        stop = min(start + width, w.shape[1])
        score = w[:, start:stop].square() / u.diagonal()[start:stop].square()
        mask = mask_from_scores(score, sparsity=sparsity)
        for j in range(start, stop):
            error = torch.where(mask[:, j - start], 0.0, w[:, j]) / u[j, j]
            w[:, j:] -= error[:, None] * u[j, j:]
            w[:, j] *= mask[:, j - start]
    return w


def test_sparsegpt_is_the_papers_algorithm() -> None:
    weight, x = layer(32, 320)
    done = registry.get("sparsegpt").prune(
        weight, stats_of(x), sparsity=0.5, pattern="unstructured", scope="layer", seed=0
    )
    expected = textbook_sparsegpt(weight, x, sparsity=0.5)
    agree = ((expected != 0) == done.mask).double().mean()
    assert agree > 0.999  # a near tie may fall the other way in float32
    if agree == 1:
        torch.testing.assert_close(done.weight.double(), expected, rtol=1e-2, atol=1e-3)


def test_sparsegpt_takes_dead_features_and_singular_inputs() -> None:
    weight, x = layer()
    x[:, 5] = 0
    x[:, 6] = x[:, 7]
    few = x[:20]  # rank 20 of 144
    done = registry.get("sparsegpt").prune(
        weight, stats_of(few), sparsity=0.5, pattern="unstructured", scope=None, seed=0
    )
    assert torch.isfinite(done.weight).all()
    assert (done.weight[:, 5] == 0).all()


def test_sparsegpt_raises_the_damping_where_the_factorisation_fails() -> None:
    from zeroskip.sparsify.weights.sparsegpt import inverse_cholesky

    indefinite = torch.eye(16)
    indefinite[0, 1] = indefinite[1, 0] = 1.05  # smallest eigenvalue -0.05: 0.01 is not enough, 0.1 is
    upper = inverse_cholesky(indefinite)
    damped = indefinite + 0.1 * torch.eye(16)
    torch.testing.assert_close(upper.T @ upper, torch.linalg.inv(damped), rtol=1e-3, atol=1e-3)


def test_sparsegpt_with_a_hessian_of_nan_gives_up_with_one_line() -> None:
    from zeroskip.sparsify.weights.sparsegpt import inverse_cholesky

    with pytest.raises(InvalidArgument, match="not positive definite"):
        inverse_cholesky(torch.full((4, 4), float("nan")))
