"""From timings to storage: what each goal keeps, and what the reasons say."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zeroskip import DamagedFile
from zeroskip.formats import BSR, NM, Bitmask
from zeroskip.quantize import quantize
from zeroskip.runtime import choose as choosing
from zeroskip.runtime import measure
from zeroskip.runtime.layerplan import Choice, LayerPlan, group_name, lane_limits, plan_from_json, table
from zeroskip.runtime.measure import Group, Layer, Timing, candidates, groups_of, structure_of
from zeroskip.runtime.packing import native_kernels, pack
from zeroskip.runtime.values import Values
from zeroskip.testing import assert_within_bound

SIZES = [1, 16, 256]


def timing(kernel, nbytes, *times):
    return Timing(f"spmm_{kernel}", kernel.split("_")[0], "float32", nbytes, dict(zip(SIZES, times, strict=True)))


def group(*timings, sparsity=0.6, borrowed=None):
    matrix = Bitmask.from_dense(np.eye(4, dtype=np.float32))
    return Group([Layer("x", matrix, sparsity)], list(timings), borrowed)


DENSE = timing("dense_f32", 4000, 10.0, 10.0, 10.0)


def choose(found, sizes, goal, **options):
    return choosing.choose(found, sizes, goal, **options)


def kernels(choices):
    return [choice.kernel for choice in choices]


def test_balanced_keeps_one_packing_where_a_second_gains_little():
    a, b = timing("bitmask_f32", 2000, 5.0, 6.0, 5.0), timing("csr_f32", 2400, 5.4, 5.6, 5.4)
    chosen = choose(group(DENSE, a, b), SIZES, "balanced")
    assert len(set(kernels(chosen))) == 1
    assert all(choice.speedup > 1.6 for choice in chosen)


def test_balanced_keeps_one_packing_where_it_beats_dense_everywhere():
    a, b = timing("bitmask_f32", 2000, 4.0, 5.0, 5.0), timing("csr_f32", 2400, 8.0, 5.0, 3.5)
    chosen = choose(group(DENSE, a, b), SIZES, "balanced")
    assert set(kernels(chosen)) == {"spmm_bitmask_f32"}
    assert "not worth" in chosen[2].reason


def test_balanced_adds_a_second_packing_where_one_would_lose_to_dense():
    a, b = timing("bitmask_f32", 2000, 4.0, 5.0, 12.0), timing("csr_f32", 2400, 11.0, 5.0, 3.5)
    chosen = choose(group(DENSE, a, b), SIZES, "balanced")
    assert kernels(chosen) == ["spmm_bitmask_f32", "spmm_csr_f32", "spmm_csr_f32"]
    assert "once more" in chosen[0].reason


def test_balanced_adds_a_second_packing_where_its_time_outweighs_its_bytes():
    # seen on a MiniLM: a kernel for few tokens, smaller, and nearly twice as slow as another at 256
    few, many = timing("csr_f32_n16", 2000, 1.0, 1.0, 9.0), timing("csr_f32", 2100, 2.0, 2.0, 5.0)
    chosen = choose(group(DENSE, few, many), SIZES, "balanced")
    assert kernels(chosen) == ["spmm_csr_f32_n16", "spmm_csr_f32_n16", "spmm_csr_f32"]
    assert "once more" in chosen[2].reason
    large = replace(many, nbytes=9000)
    assert set(kernels(choose(group(DENSE, few, large), SIZES, "balanced"))) == {"spmm_csr_f32_n16"}


def test_balanced_holds_three_only_where_two_would_lose_to_dense():
    a = timing("bitmask_f32", 2000, 2.0, 12.0, 12.0)
    b = timing("csr_f32", 2400, 12.0, 2.0, 12.0)
    c = timing("bsr_f32", 2400, 12.0, 12.0, 2.0)
    assert kernels(choose(group(DENSE, a, b, c), SIZES, "balanced")) == [item.kernel for item in (a, b, c)]
    close = replace(a, times={**a.times, 256: 2.15})
    assert len(set(kernels(choose(group(DENSE, close, b, c), SIZES, "balanced")))) == 2
    assert len(set(kernels(choose(group(DENSE, close, b, c), SIZES, "speed")))) == 3


@given(st.lists(st.lists(st.floats(1.0, 100.0), min_size=3, max_size=3), min_size=1, max_size=4))
def test_balanced_is_never_more_than_the_threshold_slower_than_dense(rows):
    timings = [DENSE, *(timing(f"csr_f32_v{place}", 2000 + place, *times) for place, times in enumerate(rows))]
    for choice in choose(group(*timings), SIZES, "balanced"):
        assert choice.speedup >= 1 / choosing.ANOTHER_GAINS - 1e-9


def codes(*timings):
    matrix = quantize(Bitmask.from_dense(np.eye(4, dtype=np.float32)), "int8")
    return Group([Layer("x", matrix, 0.6, values=Values("int8", "float16", 0, "int8"))], list(timings))


def int8(kernel, nbytes, *times):
    return Timing(f"spmm_{kernel}", kernel.split("_")[0], "int8", nbytes, dict(zip(SIZES, times, strict=True)))


def test_codes_get_a_second_packing_where_the_first_is_dense():
    dense, one = int8("dense_i8_i32acc_x", 1000, 4.0, 3.0, 3.0), int8("csr_i8_x_n1", 900, 2.0, 30.0, 90.0)
    chosen = choose(codes(DENSE, dense, one), SIZES, "balanced")
    assert kernels(chosen) == ["spmm_csr_i8_x_n1", "spmm_dense_i8_i32acc_x", "spmm_dense_i8_i32acc_x"]
    assert ["x rounded to 8 bits" in choice.reason for choice in chosen] == [False, True, True]
    assert "compared: csr i8 2.00x, dense i8 1.00x, dense f32 0.40x" in chosen[0].reason
    slower = int8("csr_i8_x_n1", 900, 3.9, 30.0, 90.0)
    assert len(set(kernels(choose(codes(DENSE, dense, slower), SIZES, "balanced")))) == 1
    pattern = int8("nm_i8_i32acc_x", 700, 2.1, 2.0, 2.0)
    assert set(kernels(choose(codes(DENSE, dense, one, pattern), SIZES, "balanced"))) == {"spmm_nm_i8_i32acc_x"}


def test_codes_that_nothing_beats_say_what_they_were_compared_with():
    slow = int8("dense_i8_x", 1000, 3.0, 3.0, 3.0)
    chosen = choose(codes(timing("dense_f32", 4000, 1.0, 1.0, 1.0), slow), SIZES, "speed")
    assert set(kernels(chosen)) == {"spmm_dense_f32"}
    assert "compared: dense f32 1.00x, dense i8 0.33x" in chosen[0].reason
    assert "8 bits" not in chosen[0].reason


def test_where_nothing_is_measured_codes_run_in_the_dense_kernel_that_is_allowed():
    found = codes()
    assert all("_dense_i8_i32acc_" in choice.kernel for choice in choose(found, SIZES, "balanced"))
    floats = replace(found.layers[0], values=Values("int8", "float16", 0, "float32"))
    assert all("_dense_f16_" in choice.kernel for choice in choose(Group([floats]), SIZES, "balanced"))


@pytest.mark.parametrize("values", [Values("int8", "float16", 0, "int8"), Values("int8", "float16", 32, "int8")])
def test_candidates_are_those_that_take_the_codes(values):
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((64, 64)) < 0.3, rng.standard_normal((64, 64)), 0).astype(np.float32)
    matrix = values.store(dense, "bitmask", name="x")
    assert (matrix.dtype, matrix.scales.group) == ("int8", values.group)
    layer = Layer("x", matrix, 0.7, values=values)

    def names(layer):
        return {k.name for k in candidates(Group([layer]), float32_too=False, only=None, sizes=SIZES)}

    integer = {name for name in names(layer) if "_i32acc_" in name}
    assert {name.split("_i8_")[0] for name in integer} == {"spmm_dense", "spmm_bitmask"}
    own = {name for name in names(layer) if "_i8_" in name} - integer
    one_lane = {name for name in own if name.endswith("_n1")}
    assert not one_lane or values.group == 0
    assert {name.split("_i8_")[0] for name in own - one_lane} == {"spmm_csr", "spmm_bitmask"}
    fixed = {name for name in names(layer) if "_i16acc_" in name}
    assert fixed
    assert names(replace(layer, values=replace(values, x_dtype="float32"))) == names(layer) - integer - fixed


@pytest.mark.parametrize(("m", "integer"), [(4, True), (16, True), (32, False)])
def test_integer_kernels_take_patterns_of_sixteen(m, integer):
    values = Values("int8", "float32", 0, "int8")
    dense = np.where(
        np.random.default_rng(0).permuted(np.arange(64 * 16).reshape(-1, m) % m, axis=1) < m // 2, 1.0, 0.0
    )
    dense = dense.reshape(16, 64).astype(np.float32)
    matrix = values.store(dense, "bitmask", name="x")
    layer = Layer("x", matrix, 0.5, structure_of(matrix, dense), values)
    assert isinstance(layer.structured, NM)
    assert (layer.structured.dtype, layer.structured.m) == ("int8", m)
    found = candidates(Group([layer]), float32_too=False, only=None, sizes=SIZES)
    assert any(kernel.name.startswith("spmm_nm_i8_i32acc_") for kernel in found) == integer
    assert any(kernel.name.startswith("spmm_nm_i8_") and "i32acc" not in kernel.name for kernel in found)


def test_dense_is_chosen_where_sparsity_loses_and_the_reason_says_so():
    slow = timing("csr_f32", 2400, 30.0, 30.0, 30.0)
    for goal in ("balanced", "speed", "memory"):
        chosen = choose(group(DENSE, slow), SIZES, goal)
        assert set(kernels(chosen)) == {"spmm_dense_f32"}
        assert "0.33x dense" in chosen[0].reason


def test_memory_takes_the_smallest_that_is_no_slower_than_dense():
    small, fast = timing("bitmask_f32", 1000, 9.0, 9.0, 9.0), timing("csr_f32", 2000, 3.0, 3.0, 3.0)
    tiny = timing("nm_f32", 500, 11.0, 11.0, 11.0)
    assert set(kernels(choose(group(DENSE, small, fast, tiny), SIZES, "memory"))) == {"spmm_bitmask_f32"}


def test_too_little_sparsity_is_said():
    chosen = choose(group(sparsity=0.03), SIZES, "balanced")
    assert "3% of the weights are zero" in chosen[0].reason
    assert {choice.kernel.rsplit("_", 1)[0] for choice in chosen} == {"spmm_dense_f32"}
    assert chosen[0].time_s is None


def test_a_borrowed_measurement_is_said():
    a = timing("bitmask_f32", 2000, 4.0, 5.0, 5.0)
    assert "time ran out" in choose(group(DENSE, a, borrowed=0.5), SIZES, "balanced")[0].reason


def test_layers_share_a_measurement_by_shape_sparsity_and_pattern():
    rng = np.random.default_rng(0)

    def layer(name, shape, sparsity):
        dense = rng.standard_normal(shape).astype(np.float32)
        return Layer(name, Bitmask.from_dense(dense), sparsity)

    layers = [layer("a", (4, 8), 0.5), layer("b", (4, 8), 0.503), layer("c", (4, 8), 0.6), layer("d", (8, 4), 0.5)]
    assert [[item.name for item in found.layers] for found in groups_of(layers)] == [["a", "b"], ["c"], ["d"]]


def test_patterns_are_recognised_and_only_where_they_hold():
    rng = np.random.default_rng(0)
    dense = rng.standard_normal((128, 64)).astype(np.float32)
    groups = dense.reshape(128, 16, 4)
    two_of_four = np.where(np.argsort(np.argsort(-np.abs(groups))) < 2, groups, 0).reshape(128, 64).astype(np.float32)
    found = structure_of(Bitmask.from_dense(two_of_four), two_of_four)
    assert isinstance(found, NM)
    assert (found.n, found.m) == (2, 4)
    blocks = dense * np.kron(rng.random((8, 64)) < 0.4, np.ones((16, 1))).astype(np.float32)
    found = structure_of(Bitmask.from_dense(blocks), blocks)
    assert isinstance(found, BSR)
    assert found.block == (16, 1)
    random = np.where(rng.random((128, 64)) < 0.5, dense, 0).astype(np.float32)
    assert structure_of(Bitmask.from_dense(random), random) is None
    broken = two_of_four.copy()
    broken[100, :4] = 1  # beyond the rows that are looked at first
    assert not isinstance(structure_of(Bitmask.from_dense(broken), broken), NM)


def test_lane_limits_lie_between_the_sizes():
    assert lane_limits([1, 16, 256]) == [1, 64, None]
    assert lane_limits([8]) == [None]


def plan(name="layers.0.q", n=(1, 16)):
    choices = tuple(
        Choice(size, "spmm_csr_f32_avx2", 1e-5, "spmm_dense_f32_avx2", 2e-5, "csr 2.00x dense") for size in n
    )
    return LayerPlan(name, (4, 8), 0.5, "csr", "float32", 100, choices)


def test_plan_round_trip_and_table():
    plans = (plan("layers.0.q"), plan("layers.1.q"), plan("layers.1.k"))
    assert plan_from_json("x", [item.as_json() for item in plans]) == plans
    text = table(plans)
    assert "2.00x" in text
    assert "(3)" in text
    assert len(text.splitlines()) == 2 + 2


def test_group_names():
    assert group_name(["a.0.q", "a.1.q"]) == "a.*.q (2)"
    assert group_name(["a.0.q", "a.0.k", "a.1.q"]) == "a.*.q and 1 more (3)"
    assert group_name(["head"]) == "head"


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [4]},
        {"shape": [0, 4]},
        {"sparsity": "half"},
        {"choices": []},
        {"choices": [{"n": 16}]},
        {"name": None},
        {"nbytes": -1},
    ],
)
def test_damaged_plans_are_refused(change):
    with pytest.raises(DamagedFile):
        plan_from_json("x", [{**plan().as_json(), **change}])
    with pytest.raises(DamagedFile):
        plan_from_json("x", [3])


@pytest.mark.parametrize(("cold", "walked"), [(0, set()), (1000, {700}), (350, {48})])
def test_what_others_read_is_not_walked_over_again(cold, walked, monkeypatch):
    """Kernels with copies of 100, 150 and 150 bytes: before each, at least `cold` bytes of other memory are read."""
    log = []

    class Other:
        def __init__(self, size):
            self.size = size

        def __getitem__(self, part):
            return Other(part.stop)

        def max(self):
            log.append(self.size * 4)

    class Handle:
        def __init__(self, nbytes):
            self.nbytes, self.packed, self.shape = nbytes, self, (4, 4)

    monkeypatch.setattr(measure.np, "ones", lambda size, dtype: Other(size))
    monkeypatch.setattr(measure, "native", lambda: type("Native", (), {"run": staticmethod(lambda *_: None)}))
    packs = {"a": [Handle(100)], "b": [Handle(150)], "c": [Handle(150)]}
    found = measure.interleaved(packs, 1, 0.001, packs, cold)
    assert set(found) == set(packs)
    lacking = {max(0, cold - 400 + own) // 4 * 4 for own in (100, 150)} - {0}
    assert set(log) == lacking
    assert walked <= lacking


class Packing:
    """A matrix that takes no bytes; its own packed form."""

    shape, nbytes = (4, 4), 0

    def __init__(self, name):
        self.name, self.packed = name, self


class Made:
    """A native module whose kernels take made-up times, the last one over again, of a clock that stands otherwise."""

    def __init__(self, monkeypatch, **seconds):
        self.now, self.seconds, self.runs = 0.0, seconds, dict.fromkeys(seconds, 0)
        self.packs = {name: [Packing(name)] for name in seconds}
        monkeypatch.setattr(measure, "native", lambda: self)
        monkeypatch.setattr(measure, "time", self)

    def perf_counter(self):
        return self.now

    def run(self, packing, *_):
        spans, done = self.seconds[packing.name], self.runs[packing.name]
        self.now += spans[min(done, len(spans) - 1)]
        self.runs[packing.name] += 1


def test_the_time_goes_to_those_close_to_the_best_of_their_side(monkeypatch):
    made = Made(monkeypatch, dense=[2e-3], worse=[3e-3], sparse=[1e-3], close=[1.1e-3], far=[1.3e-3])
    found = measure.interleaved(made.packs, 8, 0.05, {"dense", "worse"}, 0, close=1.15)
    assert found == pytest.approx({"dense": 2e-3, "worse": 3e-3, "sparse": 1e-3, "close": 1.1e-3, "far": 1.3e-3})
    assert made.runs["worse"] == made.runs["far"] == 2 + 3
    assert made.runs["dense"] == made.runs["sparse"] == made.runs["close"] > 2 + 6
    made = Made(monkeypatch, dense=[2e-3], worse=[3e-3], sparse=[1e-3])
    measure.interleaved(made.packs, 8, 0.05, {"dense"}, 0)
    assert len(set(made.runs.values())) == 1  # analyze wants all of them


def test_a_disturbed_run_makes_no_kernel_hopeless_and_moves_no_figure(monkeypatch):
    made = Made(monkeypatch, dense=[2e-3], sparse=[9e-3, 9e-3, 1e-3, 3e-3, 1e-3, 3e-3, 1e-3], slow=[9e-3])
    found = measure.interleaved(made.packs, 8, 0.05, {"dense"}, 0)
    assert found["sparse"] == pytest.approx(1e-3)
    assert made.runs["slow"] == 3


@pytest.mark.parametrize("n", [1, 9])
@pytest.mark.parametrize("kernel", ["csr_i4", "bitmask_i4"])
def test_packing_hands_over_zero_points(kernel, n):
    rng = np.random.default_rng(3)
    dense = np.where(rng.random((40, 96)) < 0.4, rng.standard_normal((40, 96)) + 0.5, 0).astype(np.float32)
    a = quantize(Bitmask.from_dense(dense), "int4", group=32, symmetric=False)
    x, out = rng.standard_normal((96, n)).astype(np.float32), np.full((40, n), np.nan, dtype=np.float32)
    name = next(k.name for k in native_kernels() if k.name.startswith(f"spmm_{kernel}_"))
    pack(name, a).run(x, out)
    assert_within_bound(out, a, x)
