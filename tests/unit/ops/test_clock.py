"""The clock of `plan`, with kernels whose time is made up: turns, who drops out, the budget, pauses, cold weights."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest

from zeroskip.ops import clock as clocks
from zeroskip.ops.clock import Span, measure, quartile

SPARSE, OURS, NUMPY = "spmm_csr_f32_scalar", "spmm_dense_f32_scalar", "spmm_dense_f32_numpy"


class Clock:
    """Time that passes only when a kernel runs; stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(clocks, "time", clock)
    monkeypatch.setattr(clocks, "settle", lambda most_s: clock.log.append(f"pause {most_s}"))
    return clock


@dataclass
class Fake:
    """A prepared matrix that takes the given seconds, in turn and over again, and writes down when it ran."""

    kernel: str
    clock: Clock
    seconds: tuple[float, ...]
    runs: int = 0
    shape: tuple[int, int] = (4, 6)
    nbytes: int = 0
    first: dict[int, float] = field(default_factory=dict)

    def run(self, x: np.ndarray, out: np.ndarray, **_: object) -> None:
        self.clock.log.append(self.kernel)
        self.clock.now += self.first.get(self.runs, self.seconds[self.runs % len(self.seconds)])
        self.runs += 1


def test_times_are_found_and_those_that_may_win_are_timed_to_the_end(clock: Clock) -> None:
    spans = measure([Fake("one", clock, (0.002,)), Fake("two", clock, (0.0021,))], 3, budget_s=0.1)
    assert [span.time_s for span in spans] == pytest.approx([0.002, 0.0021])
    assert [span.noise for span in spans] == pytest.approx([0.0, 0.0])
    assert [span.dropped for span in spans] == [None, None]


def test_turns_go_forward_and_backward(clock: Clock) -> None:
    names = ["one", "two", "three"]
    measure([Fake(name, clock, (0.01,)) for name in names], 3, budget_s=0.3)
    assert clock.log[:3] == names
    assert clock.log[3:15] == [*names, *reversed(names)] * 2


def test_a_candidate_far_behind_its_side_has_few_turns(clock: Clock) -> None:
    fast, close, slow = (Fake(name, clock, (span,)) for name, span in (("a", 1e-3), ("b", 1.1e-3), ("c", 1.3e-3)))
    spans = measure([fast, close, slow], 3, budget_s=1.0)
    assert [span.dropped is None for span in spans] == [True, True, False]
    assert spans[2].time_s == pytest.approx(1.3e-3)
    assert spans[2].dropped == "timed shortly: 1.30 times the best sparse candidate"
    assert slow.runs < fast.runs / 3
    assert fast.runs == pytest.approx(close.runs, abs=2)


def test_each_side_has_its_own_best(clock: Clock) -> None:
    sparse, dense, other = (Fake(name, clock, (span,)) for name, span in (("s", 1e-3), ("d", 1.4e-3), ("e", 1.7e-3)))
    spans = measure([sparse, dense, other], 3, budget_s=1.0, dense=["d", "e"])
    assert [span.dropped is None for span in spans] == [True, True, False]
    assert "1.21 times the best dense candidate" in (spans[2].dropped or "")


@pytest.mark.parametrize(("sparse_s", "word"), [(1e-3, "dense"), (3e-3, "sparse")])
def test_a_side_that_is_far_behind_does_not_cost_time(sparse_s: float, word: str, clock: Clock) -> None:
    candidates = [Fake("s", clock, (sparse_s,)), Fake("d", clock, (4e-3 - sparse_s,))]
    spans = measure(candidates, 3, budget_s=1.0, dense=["d"])
    loser = spans[1 if word == "dense" else 0]
    assert loser.dropped == f"timed shortly: {word} takes 3.00 times as long"
    assert loser.time_s == pytest.approx(3e-3)
    assert clock.now < 0.5  # of one second: nobody is left to compare with


def test_a_disturbed_first_run_makes_nobody_hopeless(clock: Clock) -> None:
    """The kernel that wins took seven times as long while another program had the core."""
    winner = Fake("w", clock, (1e-3,), first={1: 7e-3, 2: 7e-3})
    spans = measure([winner, Fake("x", clock, (1.5e-3,)), Fake("d", clock, (2e-3,))], 3, budget_s=0.2, dense=["d"])
    assert spans[0] == Span(pytest.approx(1e-3), pytest.approx(0.0), None)


def test_the_hopeless_are_asked_again_only_where_that_is_cheap(clock: Clock) -> None:
    cheap, costly = Fake("cheap", clock, (0.02,)), Fake("costly", clock, (0.2,))
    spans = measure([Fake("fast", clock, (0.001,)), cheap, costly], 1, budget_s=0.1)
    assert (cheap.runs, costly.runs) == (4, 2)
    assert spans[1].dropped == "hardly timed: 20.0 times the best candidate"
    assert spans[2].time_s == pytest.approx(0.2)


def test_the_best_dense_one_has_its_turns_however_slow(clock: Clock) -> None:
    best, other = Fake("d", clock, (0.02,)), Fake("e", clock, (0.03,))
    spans = measure([Fake("fast", clock, (0.001,)), best, other], 1, budget_s=0.05, dense=["d", "e"])
    assert "20.00 times as long" in (spans[1].dropped or "")
    assert "hardly timed" in (spans[2].dropped or "")
    assert best.runs == other.runs + 2 == 4


def test_disturbances_do_not_move_the_figure(clock: Clock) -> None:
    """Two of three runs take twice as long; a kernel that really takes 1.2 times as long is still the slower one."""
    disturbed, slower = Fake("a", clock, (2e-3, 1e-3, 2e-3)), Fake("b", clock, (1.2e-3,))
    spans = measure([disturbed, slower], 1, budget_s=0.5)
    assert spans[0].time_s == pytest.approx(1e-3)
    assert spans[1].time_s == pytest.approx(1.2e-3)


def test_the_lower_quartile_and_its_noise() -> None:
    figures = [1.0 + 0.01 * step for step in range(101)]
    found, noise = quartile(figures)
    assert found == pytest.approx(1.25)
    # A uniform density of 1 from 1 to 2: sqrt(0.25 * 0.75 / 101) / 1, as a share of 1.25.
    assert noise == pytest.approx(np.sqrt(0.1875 / 101) / 1.25)
    assert quartile([3.0]) == (3.0, 0.0)
    assert quartile([2.0] * 9) == (2.0, 0.0)


def test_the_noise_shrinks_with_the_number_of_figures() -> None:
    random = np.random.default_rng(0)
    few, many = (np.mean([quartile(1 + random.random(m))[1] for _ in range(200)]) for m in (8, 128))
    assert few > 2.5 * many


def test_the_budget_is_kept(clock: Clock) -> None:
    measure([Fake(name, clock, (0.001,)) for name in ("one", "two")], 1, budget_s=0.3)
    assert 0.3 <= clock.now <= 0.33
    clock.now = 0.0
    slow = [Fake(name, clock, (1.0,)) for name in ("one", "two")]
    measure(slow, 1, budget_s=0.03)
    assert clock.now == 14.0  # once untimed, three turns, and three more since they may win; nothing is run to warm up


def test_one_candidate_has_nobody_to_beat(clock: Clock) -> None:
    alone = Fake("one", clock, (0.001,))
    assert measure([alone], 1, budget_s=10.0)[0].time_s == pytest.approx(0.001)
    assert clock.now < 4.1


def test_short_runs_are_repeated_within_one_sample(clock: Clock) -> None:
    short = Fake("one", clock, (10e-6,))
    measure([short], 1, budget_s=1e-9, min_sample_s=1e-3)
    assert short.runs == 1 + 3 * (1 + 100)


def test_other_libraries_fall_asleep_first(clock: Clock) -> None:
    """Kernels of one origin take turns without a pause; before another origin there is one, and a run not timed."""
    candidates = [Fake(name, clock, (0.01,)) for name in (SPARSE, NUMPY, OURS)]
    measure(candidates, 1, budget_s=0.01, settle_max_s=0.5, dense=[NUMPY, OURS])
    there = ["pause 0.5", SPARSE, SPARSE, OURS, "pause 0.5", NUMPY, NUMPY]
    back = [NUMPY, "pause 0.5", OURS, OURS, SPARSE]  # NumPy's threads are still awake
    assert clock.log[3:10] == there
    assert clock.log[10:15] == back
    clock.log.clear()
    measure(candidates[::2], 1, budget_s=0.01, dense=[OURS])
    assert not any(entry.startswith("pause") for entry in clock.log)


@pytest.mark.parametrize(("flush", "lacking"), [(0, []), (1000, [700, 48, 1000]), (320, [20, 48, 320])])
def test_cold_weights_are_walked_over_no_more_than_needed(
    flush: int, lacking: list[int], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two runs of a kernel the others' bytes count, and walks before theirs; whole floats are read.

    After one run each comes a turn forward: since a ran, 100 bytes of b and 200 of c have been read, and a walk over
    flush - 300 bytes follows; b needs none after that; c lacks 50. The turn back begins with c, which has just run.
    """
    walked: list[int] = []

    class Other:
        def __init__(self, size: int) -> None:
            self.size = size

        def __getitem__(self, part: slice) -> Other:
            return Other(part.stop)

        def max(self) -> None:
            walked.append(4 * self.size)

    monkeypatch.setattr(clocks.np, "ones", lambda size, dtype: Other(size))
    sizes = {"a": 150, "b": 100, "c": 200}
    candidates = [Fake(name, clock, (0.01,), nbytes=size) for name, size in sizes.items()]
    measure(candidates, 1, budget_s=1e-9, flush_bytes=flush)
    assert walked[:3] == lacking
    assert [candidate.runs for candidate in candidates] == [7, 7, 7]  # one run a turn, none to warm up


def test_nothing_is_measured_of_nothing() -> None:
    assert measure([], 4) == []
