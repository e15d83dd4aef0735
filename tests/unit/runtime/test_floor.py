"""The search for the fastest model above a floor, on made-up tables: no model, no kernel."""

from __future__ import annotations

import itertools
import random

import pytest

from zeroskip.runtime.floor.allocation import Bracket, Option, Rung, Trial, allocate, loss_of, time_of, useful


def made_up(layers: int, *, seed: int = 0) -> dict[str, list[Option]]:
    """Layers of different sizes and sensitivities; more sparsity is faster and loses more, ever more."""
    rng = random.Random(seed)
    table = {}
    for index in range(layers):
        size, delicate = rng.uniform(0.5, 4), rng.uniform(0.2, 5)
        rungs = [(Rung(), size, 0.0)]
        for sparsity in (0.4, 0.5, 0.6, 0.7, 0.8):
            for values, gain, more in (("float32", 1.0, 0.0), ("int8", 0.9, 2e-4)):
                loss = 0.01 * delicate * (sparsity / 0.6) ** 4 + delicate * more
                rungs.append((Rung(sparsity, values), size * (1.05 - sparsity) * gain, loss))
        table[f"layer.{index}"] = [Option(*item) for item in rungs]
    return table


def test_useful_is_the_lower_hull() -> None:
    a, b, c, d, e = (
        Option(Rung(prune), time_s, loss)
        for prune, time_s, loss in ((0.0, 10, 0), (0.4, 9.5, 1), (0.5, 6, 2), (0.6, 7, 3), (0.7, 5, 4))
    )
    assert useful([e, d, c, b, a]) == [a, c, e], "b lies above the line from a to c, d is slower than c"
    assert useful([a]) == [a]
    assert useful([a, Option(Rung(0.4), 8, 0.0)]) == [Option(Rung(0.4), 8, 0.0)], "faster for nothing"
    slower = Option(Rung(0.8), 10, 9)
    assert slower not in useful([a, c, slower])


@pytest.mark.parametrize("budget", [0.0, 0.005, 0.02, 0.05, 0.1, 0.3, 10.0])
def test_allocation_fits_and_is_close_to_the_best(budget: float) -> None:
    table = made_up(4)
    found = allocate(table, budget)
    assert loss_of(found) <= budget
    every = itertools.product(*(useful(options) for options in table.values()))
    best = min(sum(o.time_s for o in chosen) for chosen in every if sum(o.loss for o in chosen) <= budget)
    # Greedy leaves at most what one step would gain.
    step = max(a.time_s - b.time_s for options in table.values() for a, b in itertools.pairwise(useful(options)))
    assert best <= time_of(found) <= best + step
    if budget == 0.0:
        assert all(option.rung.as_given for option in found.values())
    if budget == 10.0:
        assert time_of(found) == pytest.approx(best)


def test_sensitive_layers_are_spared() -> None:
    table = {
        "delicate": [Option(Rung(), 1.0, 0.0), Option(Rung(0.6), 0.5, 0.1)],
        "robust": [Option(Rung(), 1.0, 0.0), Option(Rung(0.6), 0.5, 0.01)],
    }
    found = allocate(table, 0.05)
    assert found["delicate"].rung.as_given
    assert found["robust"].rung.prune == 0.6


def search(bracket: Bracket, loss_of_model: float, power: float, *, most: int = 12) -> int:
    """Try until there is nothing to try; a model loses this share of the prediction, to this power."""
    for done in range(most):
        assignment = bracket.next()
        if assignment is None:
            return done
        bracket.trials.append(Trial(assignment, loss_of_model * loss_of(assignment) ** power))
    return most


@pytest.mark.parametrize("share", [0.1, 0.5, 3.0])
@pytest.mark.parametrize("power", [0.7, 1.0, 1.5])
def test_bracket_ends_just_above_the_floor(share: float, power: float) -> None:
    bracket = Bracket(made_up(36), 0.02)
    trials = search(bracket, share, power)
    best = bracket.best
    assert trials <= 8
    assert best is not None
    assert best.loss <= 0.02
    # Nothing that is 5 % faster would have passed.
    budgets = [0.001 * 1.05**i for i in range(200)]
    passing = [a for a in (allocate(bracket.table, b) for b in budgets) if share * loss_of(a) ** power <= 0.02]
    assert best.time_s <= 1.05 * min(time_of(a) for a in passing)


def test_no_trial_where_nothing_is_faster() -> None:
    table = {"a": [Option(Rung(), 1.0, 0.0), Option(Rung(0.6), 1.1, 0.01)]}
    assert Bracket(table, 0.02).next() is None


def test_gives_up_where_every_step_fails() -> None:
    table = {"a": [Option(Rung(), 1.0, 0.0), Option(Rung(0.6), 0.5, 0.01)]}
    bracket = Bracket(table, 0.02)
    assert search(bracket, 100.0, 1.0) <= 3
    assert bracket.best is None


def test_fastest_of_all_is_taken_where_it_passes() -> None:
    bracket = Bracket(made_up(6), 0.5)
    assert search(bracket, 1e-3, 1.0) <= 3
    best = bracket.best
    assert best is not None
    assert best.time_s == pytest.approx(time_of(allocate(bracket.table, 1e9)))
