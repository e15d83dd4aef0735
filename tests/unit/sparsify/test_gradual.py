"""Masks in a plain training loop: kept after every step, raised by the schedule, the same after a round trip."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from zeroskip import InvalidArgument, ShapeError  # noqa: E402
from zeroskip.sparsify import GradualPruner, MaskKeeper, cubic_sparsity  # noqa: E402

STEPS = 40


class Task:
    """A tiny model, its optimiser (with momentum, which moves weights whose gradient is zero) and its data."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.ReLU(), torch.nn.Linear(32, 8))
        self.weights = {name: p for name, p in self.model.named_parameters() if p.dim() == 2}
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=1e-2, weight_decay=0.1)
        self.x, self.y = torch.randn(64, 16), torch.randn(64, 8)

    def step(self, keeper: MaskKeeper) -> None:
        self.optimiser.zero_grad()
        (self.model(self.x) - self.y).square().mean().backward()
        self.optimiser.step()
        keeper.step()

    def zeros(self, name: str) -> Any:
        return self.weights[name] == 0


def test_mask_keeper_keeps_zeros_and_only_zeros() -> None:
    task = Task()
    with torch.no_grad():
        for weight in task.weights.values():
            weight[torch.rand_like(weight) < 0.5] = 0
    zeros = {name: task.zeros(name) for name in task.weights}
    before = {name: weight.detach().clone() for name, weight in task.weights.items()}
    keeper = MaskKeeper(task.weights)
    for _ in range(5):
        task.step(keeper)
    for name, weight in task.weights.items():
        assert torch.equal(task.zeros(name), zeros[name])
        assert not torch.equal(weight, before[name])
    assert keeper.sparsity == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("pattern", ["unstructured", "block:4x1", "2:4"])
def test_the_schedule_ends_at_the_target_in_the_pattern(pattern: str) -> None:
    task = Task()
    pruner = GradualPruner(task.weights, sparsity=0.75, pattern=pattern, steps=STEPS, every=4)
    seen = []
    for _ in range(STEPS):
        task.step(pruner)
        seen.append(pruner.sparsity)
        for name, mask in pruner.masks.items():
            assert bool((task.weights[name][~mask] == 0).all())
            if pattern == "2:4":  # from the first step on
                assert int(mask.reshape(-1, 4).sum(1).max()) <= 2
    assert seen == sorted(seen)
    assert seen[0] < 0.75 or pattern == "2:4"
    assert pruner.settled
    for name, weight in task.weights.items():
        assert int(task.zeros(name).sum()) == round(0.75 * weight.numel())
        if pattern == "block:4x1":
            assert set(task.zeros(name).reshape(-1, 4, weight.shape[1]).sum(1).unique().tolist()) == {0, 4}


def test_masks_change_until_they_settle_and_not_after() -> None:
    task = Task()
    pruner = GradualPruner(task.weights, sparsity=0.5, start=0.5, steps=STEPS, end=0.4, settle=0.5, every=4)
    first = {name: mask.clone() for name, mask in pruner.masks.items()}
    for _ in range(STEPS // 2):
        task.step(pruner)
    settled = {name: mask.clone() for name, mask in pruner.masks.items()}
    assert any(not torch.equal(first[name], settled[name]) for name in first)  # a dropped weight came back
    for _ in range(STEPS // 2):
        task.step(pruner)
    assert all(torch.equal(settled[name], pruner.masks[name]) for name in settled)


def test_state_goes_on_identically() -> None:
    whole, broken = Task(), Task()
    reference = GradualPruner(whole.weights, sparsity=0.7, steps=STEPS, every=4)
    first = GradualPruner(broken.weights, sparsity=0.7, steps=STEPS, every=4)
    for _ in range(10):
        whole.step(reference)
        broken.step(first)
    again = Task()
    second = GradualPruner(again.weights, sparsity=0.7, steps=STEPS, every=4)
    again.model.load_state_dict(broken.model.state_dict())
    again.optimiser.load_state_dict(broken.optimiser.state_dict())
    second.load_state_dict(first.state_dict())
    for _ in range(STEPS - 10):
        whole.step(reference)
        again.step(second)
    for name, weight in whole.weights.items():
        assert torch.equal(weight, again.weights[name])


def test_finish_drops_what_is_left_to_drop() -> None:
    task = Task()
    pruner = GradualPruner(task.weights, sparsity=0.8, steps=1000)
    task.step(pruner)
    assert pruner.sparsity < 0.1
    pruner.finish()
    assert pruner.sparsity == pytest.approx(0.8, abs=0.01)


def test_cubic_schedule() -> None:
    values = [cubic_sparsity(p, start=0.2, final=0.8, end=0.5) for p in (0.0, 0.25, 0.5, 1.0)]
    assert values == pytest.approx([0.2, 0.8 - 0.6 / 8, 0.8, 0.8])


def test_bad_arguments_are_named() -> None:
    weights = Task().weights
    with pytest.raises(InvalidArgument, match="weights is empty"):
        MaskKeeper({})
    with pytest.raises(InvalidArgument, match="sparsity is 60"):
        GradualPruner(weights, sparsity=60)
    with pytest.raises(InvalidArgument, match=r"settle 0\.1"):
        GradualPruner(weights, sparsity=0.5, settle=0.1)
    with pytest.raises(InvalidArgument, match=r"step\(progress\)"):
        GradualPruner(weights, sparsity=0.5).step()
    with pytest.raises(InvalidArgument, match="other weights"):
        MaskKeeper(weights).load_state_dict({"masks": {}})
    with pytest.raises(ShapeError, match="GradualPruner"):
        GradualPruner(weights, sparsity=0.5, pattern="block:5x1")
