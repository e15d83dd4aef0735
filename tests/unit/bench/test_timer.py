"""The timer: shares, copies in turn, what is outside of the time."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from zeroskip.bench import timer
from zeroskip.bench.timer import MIN_CALLS, SETTLE_MAX_S, Candidate, Samples, interleave, settle


def test_quantiles_interpolate() -> None:
    samples = Samples([4.0, 1.0, 3.0, 2.0])
    assert samples.median_s == 2.5
    assert samples.quantile(0.0) == 1.0
    assert samples.quantile(1.0) == 4.0
    assert samples.quantile(1 / 3) == pytest.approx(2.0)


def test_every_candidate_has_a_slice_in_every_round() -> None:
    order: list[str] = []
    candidates = [Candidate(name, [lambda name=name: order.append(name)]) for name in "abc"]
    found = interleave(candidates, budget_s=0.0, rounds=3)
    assert [samples.rounds for samples in found] == [3, 3, 3]
    assert all(len(samples.times_s) >= 3 * MIN_CALLS for samples in found)
    firsts = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert firsts == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_candidates_of_one_engine_follow_each_other() -> None:
    order: list[str] = []
    of = {"a": "x", "b": None, "c": "x", "d": "y"}
    calls = {name: [lambda name=name: order.append(name)] for name in of}
    interleave([Candidate(name, calls[name], engine=engine) for name, engine in of.items()], budget_s=0.0, rounds=3)
    firsts = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert firsts == ["a", "c", "b", "d", "b", "d", "c", "a", "d", "a", "c", "b"]


def test_copies_are_called_in_turn() -> None:
    called: list[int] = []
    interleave([Candidate("x", [lambda i=i: called.append(i) for i in range(4)])], budget_s=0.0, rounds=2)
    assert called == [place % 4 for place in range(len(called))]


def test_what_comes_before_is_not_timed() -> None:
    found = interleave([Candidate("x", [lambda: None], before=lambda: time.sleep(0.01))], budget_s=0.0, rounds=1)
    assert max(found[0].times_s) < 0.005


def test_times_are_those_of_the_calls() -> None:
    found = interleave([Candidate("x", [lambda: time.sleep(0.002)])], budget_s=0.02, rounds=1)
    assert 0.002 <= found[0].median_s < 0.05


def test_long_calls_are_made_once_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timer, "LONG_S", 0.001)
    called: list[int] = []

    def call() -> None:
        called.append(1)
        time.sleep(0.002)

    found = interleave([Candidate("x", [call])], budget_s=0.0, rounds=3)[0]
    assert (len(called), len(found.times_s), found.rounds) == (4, 3, 3)
    assert min(found.times_s) >= 0.002


def test_a_clock_of_its_own_gives_the_times() -> None:
    found = interleave([Candidate("x", [lambda: None], clock=lambda call: 7.0)], budget_s=0.0, rounds=1)[0]
    assert found.times_s == [7.0] * len(found.times_s)


def test_settle_ends_when_nothing_runs() -> None:
    assert settle() < SETTLE_MAX_S


def test_settle_waits_for_threads_that_spin() -> None:
    stop = threading.Event()

    def spin() -> None:
        numbers = np.zeros(1 << 20)
        while not stop.is_set():
            numbers.sum()  # without Python's lock: as the workers of a library spin

    worker = threading.Thread(target=spin)
    worker.start()
    try:
        assert settle(0.05) >= 0.05
    finally:
        stop.set()
        worker.join()
    assert settle() < SETTLE_MAX_S


def test_no_candidates() -> None:
    assert interleave([], budget_s=1.0) == []
