"""Choosing, packing and remembering: with kernels whose speed is made up where a decision is tested."""

from __future__ import annotations

import gc
import weakref

import pytest

import zeroskip
from zeroskip import ops
from zeroskip.formats import CSR, SparseMatrix
from zeroskip.kernels import Prepared, registry
from zeroskip.ops import choice
from zeroskip.ops.choice import Measured, Span, decide
from zeroskip.ops.plan import cached_plan
from zeroskip.testing import assert_within_bound, random_dense, random_matrix

FORMATS = {"d": "dense", "e": "dense", "c": "csr", "b": "bitmask"}


def measured(noise: float = 0.0, **times_ms: float) -> list[Measured]:
    sizes = {"b": 10, "c": 20}
    return [Measured(name, ms * 1e-3, 0.0, sizes.get(name, 40), None, noise) for name, ms in times_ms.items()]


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


def test_sparse_must_beat_dense_by_more_than_noise_of_at_most_3_percent() -> None:
    assert decide(measured(c=0.655, d=0.66), FORMATS)[0] == "c"
    assert decide(measured(0.02, c=0.645, d=0.66), FORMATS)[0] == "d"
    assert decide(measured(0.02, c=0.635, d=0.66), FORMATS)[0] == "c"
    assert decide(measured(0.5, c=0.645, d=0.66), FORMATS)[0] == "d"
    assert decide(measured(0.5, c=0.635, d=0.66), FORMATS)[0] == "c"


def test_of_two_equally_fast_sparse_kernels_the_smaller_wins() -> None:
    assert decide(measured(c=0.500, b=0.504, d=1.0), FORMATS)[0] == "b"
    assert decide(measured(c=0.500, b=0.506, d=1.0), FORMATS)[0] == "c"


def test_noise_does_not_make_a_smaller_kernel_as_fast() -> None:
    assert decide(measured(0.03, c=0.500, b=0.510, d=1.0), FORMATS)[0] == "c"


def test_the_smaller_one_never_wins_by_being_slower_than_dense() -> None:
    assert decide(measured(c=0.500, b=0.504, d=0.502), FORMATS)[0] == "c"


def test_for_memory_the_smallest_that_beats_dense_wins() -> None:
    slow = [*measured(c=0.5, d=1.0), Measured("b", 0.9e-3, 0.0, 10, "timed shortly")]
    assert decide(slow, FORMATS)[0] == "c"
    assert decide(slow, FORMATS, optimize="memory")[0] == "b"
    slow = [*measured(c=0.5, d=1.0), Measured("b", 1.1e-3, 0.0, 10, "timed shortly")]
    assert decide(slow, FORMATS, optimize="memory")[0] == "c"
    assert decide(measured(c=1.2, b=1.1, d=1.0), FORMATS, optimize="memory")[0] == "d"


def test_of_equal_dense_products_ours_comes_before_torch_and_numpy() -> None:
    formats, origins = dict.fromkeys("dtn", "dense"), {"d": "native", "t": "torch", "n": "numpy"}
    for times, winner in (
        ({"d": 1.009, "t": 1.005, "n": 1.0}, "d"),
        ({"d": 1.02, "t": 1.009, "n": 1.0}, "t"),
        ({"d": 1.02, "t": 1.02, "n": 1.0}, "n"),
        ({"noise": 0.02, "d": 1.02, "n": 1.0}, "d"),
        ({"noise": 0.2, "d": 1.04, "n": 1.0}, "n"),
    ):
        assert decide(measured(**times), formats, origins)[0] == winner
    assert decide([*measured(n=1.0, d=1.001), *measured(c=1.2)], {**formats, **FORMATS}, origins)[0] == "d"


def test_those_that_were_timed_to_the_end_count_before_the_others() -> None:
    shortly = Measured("b", 0.49e-3, 0.0, 10, "timed shortly")
    assert decide([*measured(c=0.5, d=1.0), shortly], FORMATS)[0] == "c"
    assert decide([*measured(d=1.0), shortly], FORMATS)[0] == "b"


def test_candidates_without_a_time_do_not_count() -> None:
    skipped = Measured("b", None, None, None, "estimated at 9x")
    assert decide([*measured(c=2.0, d=1.0), skipped], FORMATS)[0] == "d"
    assert "no sparse kernel" in decide([*measured(d=1.0), skipped], FORMATS)[1]
    assert decide(measured(c=2.0), FORMATS)[0] == "c"
    with pytest.raises(ValueError, match="no candidate"):
        decide([skipped], FORMATS)


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


@pytest.mark.parametrize(
    ("sparse_ms", "numpy_ms", "taken"),
    [(0.4, 0.9, "csr"), (1.1, 0.9, "numpy"), (1.1, 1.1, "ours"), (0.99, 1.1, "ours")],
)
def test_auto_takes_what_is_measured_to_be_fastest(
    sparse_ms: float, numpy_ms: float, taken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our dense kernel takes 1 ms; all times are off by 2 % or so."""

    def measure(prepared: list[Prepared], n: int, **settings: object) -> list[Span]:
        assert {registry.get(name).format for name in settings["dense"]} == {"dense"}
        found = []
        for item in prepared:
            kernel = registry.get(item.kernel)
            spent = 1.0 if kernel.format == "dense" else sparse_ms if kernel.format == "csr" else 3.0
            found.append(Span(1e-3 * (numpy_ms if kernel.origin == "numpy" else spent), 0.015))
        return found

    monkeypatch.setitem(zeroskip.plan.__globals__, "measure", measure)
    plan = zeroskip.plan("spmm", random_matrix((64, 96), 0.7, seed=3), n=32, cache=False)
    kernel = registry.get(plan.kernel)
    assert {"csr": kernel.format == "csr", "numpy": kernel.origin == "numpy", "ours": kernel.origin == "native"}[taken]
    assert (kernel.format == "dense") == (taken != "csr")
    assert {item.noise for item in plan.measured if item.time_s} == {0.015}


def test_the_wish_is_checked() -> None:
    with pytest.raises(zeroskip.InvalidArgument, match="optimize is 'bytes'; choose one of: speed, memory"):
        zeroskip.plan("spmm", random_matrix((64, 96), 0.7), n=8, optimize="bytes")


def test_auto_never_narrows_values() -> None:
    a = random_matrix((64, 96), 0.7, seed=1)
    assert {kernel.dtype for kernel in choice.candidates(a, 8)} == {"float32"}
    narrow = choice.candidates(a.astype("bfloat16"), 8)
    sparse = {kernel.dtype for kernel in narrow if kernel.format != "dense"}
    assert sparse == {"bfloat16"}
    assert "float16" not in {kernel.dtype for kernel in narrow}


def test_auto_weighs_only_the_newest_instruction_set() -> None:
    found = choice.candidates(random_matrix((64, 96), 0.7, seed=1), 8)
    variants = [kernel.name.replace(f"_{kernel.isa}", "") for kernel in found if kernel.origin == "native"]
    assert "spmm_csr_f32" in variants
    assert len(set(variants)) == len(variants)


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
