"""Choosing, packing and remembering: with kernels whose speed is made up where a decision is tested."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass

import numpy as np
import pytest

import zeroskip
from zeroskip import ops
from zeroskip.formats import CSR, SparseMatrix
from zeroskip.kernels import registry
from zeroskip.ops import choice
from zeroskip.ops.choice import Measured, decide
from zeroskip.ops.plan import cached_plan
from zeroskip.testing import assert_within_bound, random_dense, random_matrix

FORMATS = {"d": "dense", "e": "dense", "c": "csr", "b": "bitmask"}


def measured(**times_ms: float) -> list[Measured]:
    return [Measured(name, ms * 1e-3, 0.0, {"b": 10, "c": 20}.get(name, 40)) for name, ms in times_ms.items()]


def test_the_fastest_wins_and_the_reason_names_the_baseline() -> None:
    assert decide(measured(b=0.41, c=0.50, d=0.66, e=0.70), FORMATS) == (
        "b",
        "bitmask 1.61x dense (0.41 ms against 0.66 ms)",
    )


def test_dense_wins_where_sparse_does_not_pay() -> None:
    winner, reason = decide(measured(c=0.80, d=0.70, e=0.66), FORMATS)
    assert winner == "e"
    assert reason == "dense: the best sparse kernel, csr, is 0.82x dense (0.8 ms against 0.66 ms)"


def test_a_tie_with_dense_goes_to_dense() -> None:
    assert decide(measured(c=0.66, d=0.66), FORMATS)[0] == "d"


def test_of_two_equally_fast_sparse_kernels_the_smaller_wins() -> None:
    assert decide(measured(c=0.500, b=0.510, d=1.0), FORMATS)[0] == "b"
    assert decide(measured(c=0.500, b=0.520, d=1.0), FORMATS)[0] == "c"


def test_the_smaller_one_never_wins_by_being_slower_than_dense() -> None:
    assert decide(measured(c=0.500, b=0.510, d=0.505), FORMATS)[0] == "c"


def test_candidates_without_a_time_do_not_count() -> None:
    skipped = Measured("b", None, None, None, "estimated at 9x")
    assert decide([*measured(c=2.0, d=1.0), skipped], FORMATS)[0] == "d"
    assert "no sparse kernel" in decide([*measured(d=1.0), skipped], FORMATS)[1]
    assert decide(measured(c=2.0), FORMATS)[0] == "c"
    with pytest.raises(ValueError, match="no candidate"):
        decide([skipped], FORMATS)


class Clock:
    """Time that passes only when a kernel runs or somebody waits; stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.log.append(f"pause {seconds}")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(choice, "time", clock)
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

    def run(self, x: np.ndarray, out: np.ndarray, **_: object) -> None:
        self.clock.log.append(self.kernel)
        self.clock.now += self.seconds[self.runs % len(self.seconds)]
        self.runs += 1


def test_measure_takes_turns_and_finds_the_times(clock: Clock) -> None:
    times = choice.measure([Fake("one", clock, (0.002,)), Fake("two", clock, (0.004,))], 3, budget_s=0.05)
    assert times == pytest.approx([0.002, 0.004])
    assert clock.log == ["one", "two"] * (len(clock.log) // 2)


def test_measure_gives_the_median(clock: Clock) -> None:
    candidate = Fake("one", clock, (0.002, 0.002, 0.050))
    assert choice.measure([candidate], 3, budget_s=1.0) == pytest.approx([0.002])


def test_measure_drops_the_hopeless_but_not_those_to_keep(clock: Clock) -> None:
    candidates = [Fake("fast", clock, (0.001,)), Fake("slow", clock, (0.02,)), Fake("kept", clock, (0.02,))]
    times = choice.measure(candidates, 1, budget_s=0.05, keep=["kept"])
    assert [candidate.runs for candidate in candidates] == [5, 2, 5]
    assert times == pytest.approx([0.001, 0.02, 0.02])


def test_measure_keeps_to_its_budget(clock: Clock) -> None:
    choice.measure([Fake("one", clock, (0.001,))], 1, budget_s=0.03)
    assert 0.03 <= clock.now <= 0.035
    clock.now = 0.0
    choice.measure([Fake("one", clock, (1.0,))], 1, budget_s=0.03)
    assert clock.now == 5.0


def test_measure_repeats_short_runs_within_a_sample(clock: Clock) -> None:
    short = Fake("one", clock, (10e-6,))
    choice.measure([short], 1, budget_s=1e-9, min_sample_s=1e-3)
    assert short.runs == 2 + 3 * 100
    flushed = Fake("one", clock, (10e-6,))
    choice.measure([flushed], 1, budget_s=1e-9, min_sample_s=1e-3, flush_bytes=1 << 16)
    assert flushed.runs == 2 + 3


def test_measure_lets_other_libraries_fall_asleep_first(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels of one origin take turns without a pause; before another origin there is one, and a run not timed."""
    names = ["spmm_csr_f32_scalar", "spmm_dense_f32_numpy", "spmm_dense_f32_scalar"]
    monkeypatch.setattr(choice, "settle", lambda most_s: clock.log.append(f"pause {most_s}"))
    choice.measure([Fake(name, clock, (0.001,)) for name in names], 1, budget_s=0.01, settle_max_s=0.5)
    turn = ["pause 0.5", names[0], names[0], names[2], "pause 0.5", names[1], names[1]]
    assert clock.log[3:17] == turn * 2
    clock.log.clear()
    choice.measure([Fake(name, clock, (0.001,)) for name in names[::2]], 1, budget_s=0.01)
    assert not any(entry.startswith("pause") for entry in clock.log)


def test_measure_of_nothing() -> None:
    assert choice.measure([], 4) == []


@pytest.mark.parametrize("op", ["spmm", "linear", "spmv"])
def test_auto_always_weighs_dense(op: str) -> None:
    a = random_matrix((64, 96), 0.7, seed=1)
    n = 1 if op == "spmv" else 8
    plan = zeroskip.plan(op, a, n=n, budget_s=0.02)
    formats = {registry.get(m.kernel).format for m in plan.measured if m.time_s is not None}
    assert "dense" in formats
    assert plan.kernel in {m.kernel for m in plan.measured if m.time_s is not None}
    assert "dense" in plan.reason
    assert plan.nbytes == plan.prepared.nbytes > 0
    assert plan.prepare_s > 0
    assert plan.shape == (64, 96)
    x = random_dense((96,) if op == "spmv" else (96, n) if op == "spmm" else (n, 96), seed=2)
    y = plan(x)
    if op == "spmv":
        x, y = x[:, None], y[:, None]
    assert_within_bound(y, a, x, transposed=op == "linear")


def test_auto_never_takes_a_kernel_slower_than_dense() -> None:
    """By its own measurements, over sparsities where either side wins."""
    for sparsity in (0.0, 0.3, 0.6, 0.9, 0.98):
        plan = zeroskip.plan("spmm", random_matrix((128, 128), sparsity, seed=3), n=32, budget_s=0.02)
        times = {m.kernel: m.time_s for m in plan.measured if m.time_s is not None}
        dense = min(spent for name, spent in times.items() if registry.get(name).format == "dense")
        assert times[plan.kernel] <= dense


def test_auto_never_narrows_values() -> None:
    a = random_matrix((64, 96), 0.7, seed=1)
    assert {kernel.dtype for kernel in choice.candidates(a, 8)} == {"float32"}
    narrow = choice.candidates(a.astype("bfloat16"), 8)
    sparse = {kernel.dtype for kernel in narrow if kernel.format != "dense"}
    assert sparse == {"bfloat16"}
    assert "float16" not in {kernel.dtype for kernel in narrow}


def test_auto_weighs_only_the_newest_instruction_set() -> None:
    found = choice.candidates(random_matrix((64, 96), 0.7, seed=1), 8)
    native = {(kernel.format, kernel.isa) for kernel in found if kernel.origin == "native"}
    assert len({isa for format, isa in native if format == "csr"}) == 1


def test_the_cost_model_drops_what_cannot_win_and_says_so() -> None:
    a = random_matrix((256, 256), 0.99, seed=4)
    kernels = choice.candidates(a, 128)
    dropped = choice.hopeless(kernels, a, 128)
    assert not any(registry.get(name).format == "dense" for name in dropped)
    dense = next(kernel for kernel in kernels if kernel.format == "dense")
    csr = next(kernel for kernel in kernels if kernel.format == "csr")
    assert choice.estimate(csr, a, 128) < choice.estimate(dense, a, 128) / 10
    full = random_matrix((256, 256), 0.0, seed=4)
    assert choice.estimate(csr, full, 128) > choice.estimate(dense, full, 128)


def test_a_named_kernel_is_taken_without_measuring() -> None:
    plan = zeroskip.plan("spmm", random_matrix((64, 96), 0.7), n=8, kernel="spmm_csr_f32_scipy")
    assert plan.kernel == "spmm_csr_f32_scipy"
    assert plan.reason == "named by the caller"
    assert [m.kernel for m in plan.measured] == [plan.kernel]
    assert plan.measured[0].time_s is None


@pytest.mark.parametrize("op", ["spmm", "linear", "spmv"])
@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_codes_that_no_kernel_takes_run_dequantised_and_the_plan_says_so(
    dtype: str, op: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "registry", [kernel for kernel in registry if kernel.dtype == "float32"])
    a = random_matrix((64, 96), 0.7, seed=1, dtype=dtype, group=32, symmetric=False)
    n = 1 if op == "spmv" else 8
    plan = zeroskip.plan(op, a, n=n, budget_s=0.02)
    assert f"no kernel here takes {dtype} values, they run dequantised to float32" in plan.reason
    assert any(registry.get(m.kernel).format == "dense" for m in plan.measured if m.time_s is not None)
    x = random_dense((96,) if op == "spmv" else (96, n) if op == "spmm" else (n, 96), seed=2)
    y = plan(x)
    if op == "spmv":
        x, y = x[:, None], y[:, None]
    assert_within_bound(y, a, x, transposed=op == "linear")
    assert "dequantised" not in zeroskip.plan(op, a.astype("float32"), n=n, budget_s=0.02).reason


def test_a_plan_runs_with_other_sizes_than_it_was_made_for() -> None:
    a = random_matrix((64, 96), 0.7, seed=5)
    plan = zeroskip.plan("spmm", a, n=8, budget_s=0.02)
    for n in (1, 3, 100):
        x = random_dense((96, n), seed=n)
        assert_within_bound(plan(x), a, x)


def test_a_plan_does_not_need_the_matrix_any_more() -> None:
    a: SparseMatrix | None = random_matrix((64, 96), 0.7, seed=6)
    assert a is not None
    copy = CSR.from_dense(a.to_dense())
    plan = zeroskip.plan("spmm", a, n=8, budget_s=0.02)
    gone = weakref.ref(a)
    a = None
    gc.collect()
    assert gone() is None
    x = random_dense((96, 4), seed=1)
    assert_within_bound(plan(x), copy, x)


def test_plans_of_direct_calls_are_kept_as_long_as_the_matrix() -> None:
    a: SparseMatrix | None = random_matrix((64, 96), 0.7, seed=7)
    assert a is not None
    ops.spmm(a, random_dense((96, 5)))
    first = cached_plan("spmm", a, 5, "auto")
    assert cached_plan("spmm", a, 8, "auto") is first
    assert cached_plan("spmm", a, 9, "auto") is not first
    assert cached_plan("linear", a, 5, "auto") is not first
    named = cached_plan("spmm", a, 5, "spmm_dense_f32_numpy")
    assert cached_plan("spmm", a, 500, "spmm_dense_f32_numpy") is named
    assert cached_plan("linear", a, 5, "spmm_dense_f32_numpy").prepared is named.prepared
    gone = weakref.ref(first)
    del first, named
    a = None
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("name", "fits"),
    [("spmm_csr_f32_avx2", {1, 2, 16, 17}), ("spmm_csr_f32_avx2_n16", {2, 16}), ("spmm_csr_f32_avx2_n1", {1})],
)
def test_a_name_says_how_many_columns_a_kernel_is_made_for(name: str, fits: set[int]) -> None:
    assert {n for n in (1, 2, 16, 17) if choice.wrong_size(name, n) is None} == fits
