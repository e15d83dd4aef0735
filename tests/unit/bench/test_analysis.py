"""`analyze`: where curves cross, operands of every format, the check before the clock, the order, and the output."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zeroskip
from zeroskip import InvalidArgument
from zeroskip.bench.analysis import layers, roofline, runner, search, spots, tables
from zeroskip.bench.analysis.breakeven import BreakEven, break_even, next_step, speedup_at
from zeroskip.bench.analysis.check import Check
from zeroskip.bench.analysis.operands import Form, Operands, stripe
from zeroskip.bench.analysis.roofline import Roofline, measure_roofline
from zeroskip.bench.analysis.search import Search, Settings
from zeroskip.bench.analysis.spots import Point, Spots, allowed_dense
from zeroskip.cli import main
from zeroskip.formats import DTYPES
from zeroskip.kernels import registry

FORMS = ("csr", "bitmask", "nm", "nm:8", "bsr", "bsr:4x2")
GRID = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9)
ROOF = Roofline(1e10, "a", 1e11, "b")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink(monkeypatch)


def shrink(patch: pytest.MonkeyPatch) -> None:
    """A roofline of a few megabytes, short shares, and no torch."""
    patch.setattr(roofline, "_READ_BYTES", 1 << 20)
    patch.setattr(runner, "cold_bytes", lambda: 50_000)
    patch.setattr(roofline, "_SIZE", 64)
    patch.setattr(spots, "LIBRARIES", ("numpy",))
    patch.setattr(runner, "import_libraries", lambda: None)
    patch.setattr(runner, "_SHARE_S", 0.001)


def power(factor: float, *at: float) -> dict[float, float]:
    """A kernel whose time goes with its entries: the ratio is factor / density."""
    return {s: factor / (1 - s) for s in at}


def test_a_curve_that_goes_with_the_entries_is_crossed_exactly() -> None:
    found = break_even(power(0.4, 0.5, 0.8, 0.9), 0.0, 0.98)
    assert (found.kind, found.sparsity) == ("from", pytest.approx(0.6))
    assert str(found) == "60 %"
    assert speedup_at(power(0.4, 0.5, 0.9), 0.8) == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("ratios", "kind", "text"),
    [
        ({}, "unknown", "?"),
        (power(1.0, 0.0, 0.5), "always", "always"),
        (power(1.0, 0.5, 0.9), "below", "<50 %"),
        (power(0.01, 0.0, 0.98), "never", "never"),
        (power(0.01, 0.5, 0.9), "above", ">90 %"),
    ],
)
def test_answers_at_the_ends(ratios: dict[float, float], kind: str, text: str) -> None:
    found = break_even(ratios, 0.0, 0.98)
    assert (found.kind, str(found)) == (kind, text)
    json.dumps(found.as_json())


def test_the_last_crossing_counts() -> None:
    """What wins at 40 and loses again at 60 % pays from there on only."""
    found = break_even({0.2: 0.8, 0.4: 1.1, 0.6: 0.9, 0.8: 1.2}, 0.0, 0.8)
    assert found.sparsity is not None
    assert 0.6 < found.sparsity < 0.8


def test_nothing_is_said_outside_of_what_was_measured() -> None:
    assert speedup_at(power(0.4, 0.5, 0.9), 0.95) is None
    assert speedup_at(power(0.4, 0.5, 0.9), 0.3) is None
    assert speedup_at({}, 0.5) is None
    assert speedup_at({0.8: 3.0}, 0.8) == 3.0


@pytest.mark.parametrize("crossing", [-0.5, 0.05, 0.33, 0.5, 0.77, 0.97, 1.5])
def test_the_search_ends_beside_the_crossing(crossing: float) -> None:
    grid = [place / 50 for place in range(50)]
    ratios = {0.5: math.exp(0.5 - crossing), 0.8: math.exp(0.8 - crossing)}
    for _ in range(8):
        step = next_step(ratios, grid)
        if step is None:
            break
        assert step.sparsity not in ratios
        assert step.width > 0
        ratios[step.sparsity] = math.exp(step.sparsity - crossing)
    assert next_step(ratios, grid) is None
    found = break_even(ratios, grid[0], grid[-1])
    if 0 < crossing < grid[-1]:
        losing = max(s for s in ratios if ratios[s] < 1)
        assert min(s for s in ratios if ratios[s] >= 1) - losing == pytest.approx(0.02)
        assert found.sparsity == pytest.approx(crossing, abs=0.02)
    else:
        assert found.kind == ("always" if crossing < 0 else "never")


@pytest.mark.parametrize("text", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_operands_have_pattern_sparsity_and_type(text: str, dtype: str) -> None:
    form = Form.parse(text)
    assert Form.parse(str(form)) == form
    operands = Operands((96, 160), 3, 0)
    sparsity = form.sparsities(0.75)[0]
    a = operands.matrices([form], sparsity).matrix(form, dtype)
    assert (a.name, a.dtype, a.shape) == (form.format, dtype, (96, 160))
    assert a.sparsity == pytest.approx(sparsity, abs=0.05)
    dense = a.to_dense()
    assert np.count_nonzero(dense) == a.nnz
    if form.format == "nm":
        assert a.sparsity == 0.75
        assert (np.count_nonzero(dense.reshape(96, -1, form.cols), axis=2) == form.cols // 4).all()
    for start, stop in ((0, 32), (32, 96)):
        np.testing.assert_array_equal(stripe(a, start, stop).to_dense(), dense[start:stop])


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_full_matrix_is_the_dense_one(dtype: str) -> None:
    operands = Operands((6, 300), 3, 0)
    np.testing.assert_array_equal(operands.full(dtype).to_dense(), operands.dense(dtype).to_dense())
    assert np.count_nonzero(operands.full(dtype).to_dense()) == 1800


def test_forms_of_one_pattern_are_one_matrix_and_x_grows_by_columns() -> None:
    operands = Operands((40, 24), 8, 0)
    forms = [Form.parse("csr"), Form.parse("bitmask")]
    pattern = operands.matrices(forms, 0.6)
    np.testing.assert_array_equal(*(pattern.matrix(form, "int8").to_dense() for form in forms))
    np.testing.assert_array_equal(operands.x(8)[:, :3], operands.x(3))


@pytest.mark.parametrize("text", ["ell", "nm:1", "nm:x", "bsr:4", "bsr:0x4", ""])
def test_unknown_formats_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="choose of csr"):
        Form.parse(text)


def test_sparsities_of_groups_are_the_nearest_there_are() -> None:
    form = Form.parse("nm:16")
    assert form.sparsities(0.5) == (0.5,)
    assert form.sparsities(0.8) == (0.75, 0.8125)
    assert form.sparsities(0.98) == (0.9375,)
    assert form.sparsities(0.0) == ()
    assert form.fits((4, 24)) is not None
    assert form.fits((4, 32)) is None


class Wrong:
    """A packed matrix whose result is spoiled in one element."""

    def __init__(self, a: Any, place: tuple[int, int], value: float) -> None:
        self.shape, self._dense, self._place, self._value = a.shape, a.to_dense(), place, value

    def run(self, x: Any, out: Any, **_: object) -> None:
        np.matmul(self._dense, x, out=out)
        if self._place[1] < out.shape[1]:
            out[self._place] += self._value


@pytest.mark.parametrize(
    ("place", "value", "n"),
    [((0, 0), 0.0, None), ((0, 0), 1e-2, 1), ((95, 7), 1e-2, 8), ((48, 4), 1e-2, 8), ((40, 3), np.nan, 8)],
)
def test_the_check_finds_wrong_elements(place: tuple[int, int], value: float, n: int | None) -> None:
    operands = Operands((96, 64), 8, 0)
    form = Form.parse("csr")
    a = operands.matrices([form], 0.5).matrix(form, "float32")
    check = Check(a, {1: operands.x(1), 8: operands.x(8)}, x_dtype="float32")
    found = check.wrong(Wrong(a, place, value), [1, 8])
    assert (found and found[0]) == n
    if found:
        assert "wrong result" in found[1]


def measured(**options: Any) -> Spots:
    made = Spots((64, 96), (1, 8), seed=0, share_s=0.002, cold_bytes=50_000, **options)
    made.measure_dense(("float32", "bfloat16"))
    return made


def test_spots_time_dense_and_sparse(small: None) -> None:
    made = measured()
    for n in (1, 8):
        kernels = {item.kernel: item for item in made.dense[n]}
        assert kernels[spots.anchor_name()].ratio == 1.0
        assert "spmm_dense_f32_numpy" in kernels
        best = made.baseline(n, ("float32", "bfloat16"))
        assert best is not None
        assert best.ratio == min(item.ratio for item in kernels.values())
    forms = [Form.parse("csr"), Form.parse("bitmask")]
    made.measure(forms, {"float32": (1, 8), "bfloat16": (8,)}, 0.75)
    seen = {(point.form, point.dtype, point.n) for point in made.points}
    kernels_there = {(k.format, k.dtype) for form in forms for k in spots.kernels_of(form, "float32")}
    assert {("csr", "float32", 1), ("csr", "float32", 8), ("csr", "bfloat16", 8)} <= seen
    assert ("csr", "bfloat16", 1) not in seen
    assert {form for form, _ in kernels_there} == {form for form, dtype, _ in seen if dtype == "float32"}
    assert all(point.time_s > 0 and point.dense_s > 0 and point.nbytes > 0 for point in made.points)
    assert made.failures == []


@pytest.mark.parametrize("n", [1, 8])
def test_kernels_made_for_few_columns_and_for_codes_are_weighed(small: None, n: int) -> None:
    """All that take the matrix, and of those made for a number of columns the ones for this number."""
    made = measured()
    made.measure([Form.parse("csr"), Form.parse("bitmask")], {"float32": (1, 8), "int8": (1, 8)}, 0.75)
    made.measure([Form.parse("nm")], {"float32": (1, 8), "int8": (1, 8)}, 0.75)
    forms = [Form.parse(text) for text in ("csr", "bitmask", "nm")]
    ours = [kernel for form in forms for dtype in ("float32", "int8") for kernel in spots.kernels_of(form, dtype)]
    fitting = {kernel.name for kernel in ours if not spots.wrong_size(kernel.name, n)}
    assert {point.kernel for point in made.points if point.n == n} == fitting
    assert {point.x for point in made.points if point.n == n and "i32acc" in point.kernel} == {"int8"}
    if any(kernel.isa != "scalar" for kernel in ours):
        assert any(name.endswith({1: "_n1", 8: "_n16"}[n]) for name in fitting)


def test_a_wrong_kernel_is_a_failure_and_not_timed(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured()
    kernel = spots.kernels_of(Form.parse("csr"), "float32")[0]
    monkeypatch.setattr(type(kernel), "prepare", lambda self, a: Wrong(a, (0, 0), 1.0))
    made.measure([Form.parse("csr")], {"float32": (1, 8)}, 0.75)
    assert made.points == []
    fitting = [n for n in (1, 8) if not spots.wrong_size(kernel.name, n)]
    assert (kernel.name, fitting[0]) in {(item.kernel, item.n) for item in made.failures}
    assert all("times its bound" in item.reason for item in made.failures)


def test_a_kernel_that_raises_is_a_failure(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured()

    def broken(self: Any, a: Any) -> None:
        raise RuntimeError("no\nmemory")

    monkeypatch.setattr(type(spots.kernels_of(Form.parse("csr"), "float32")[0]), "prepare", broken)
    made.measure([Form.parse("csr")], {"float32": (8,)}, 0.75)
    assert {item.reason for item in made.failures} == {"RuntimeError: no memory"}


def test_measuring_breaks_off_when_time_is_up(small: None) -> None:
    made = measured(end=0.0)
    made.measure([Form.parse("csr")], {"float32": (1, 8)}, 0.9)
    seen = len(made.points)
    assert {point.n for point in made.points} == {1}
    assert made.cut
    made.measure([Form.parse("csr")], {"float32": (1, 8)}, 0.5)
    assert len(made.points) == seen


def test_a_hopeless_kernel_is_not_tried_with_more_entries(small: None) -> None:
    made = measured()
    for kernel in spots.kernels_of(Form.parse("csr"), "float32"):
        made.points.append(Point("csr", kernel.name, "float32", "float32", 8, 0.9, 1, 1, 1.0, 0.1))
    made.measure([Form.parse("csr")], {"float32": (8,)}, 0.5)
    assert {point.sparsity for point in made.points} == {0.9}
    made.measure([Form.parse("csr")], {"float32": (8,)}, 0.95)
    assert {point.sparsity for point in made.points} == {0.9, 0.95}


def test_a_turn_in_which_dense_was_disturbed_is_taken_again(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = measured()
    anchor = spots.anchor_name()
    usual = next(item.time_s for item in made.dense[8] if item.kernel == anchor)
    turns = iter([3.0, 0.5, 1.05])
    taken: list[float] = []

    def fake(packs: dict[str, Any], *_: object) -> dict[str, float]:
        taken.append(next(turns))
        return dict.fromkeys(packs, taken[-1] * usual)

    monkeypatch.setattr(spots, "interleaved", fake)
    made.measure([Form.parse("csr")], {"float32": (8,)}, 0.75)
    assert taken == [3.0, 0.5, 1.05]
    assert {point.dense_s for point in made.points} == {1.05 * usual}


def test_dense_rivals_keep_as_many_bits() -> None:
    assert allowed_dense("float32") == ("float32",)
    assert set(allowed_dense("float16")) == {"float32", "bfloat16", "float16"}
    assert set(allowed_dense("int4")) == set(DTYPES)


class FakeSpots:
    """Kernels whose ratio is factor / density, with nothing run."""

    shape = (64, 96)

    def __init__(self, factors: dict[tuple[str, str], float]) -> None:
        self.points: list[Point] = []
        self.jobs: list[tuple[str, float]] = []
        self._factors = factors

    def baseline(self, n: int, dtypes: object) -> Any:
        return spots.Dense("d", "float32", "native", 1.0, 1.0)

    def measure(self, forms: Any, wanted: Any, sparsity: float) -> None:
        self.jobs.append((forms[0].pattern, sparsity))
        for form in forms:
            for dtype, ns in wanted.items():
                for n in ns:
                    time_s = (1 - sparsity) / self._factors[str(form), dtype]
                    self.points.append(Point(str(form), "k", dtype, "float32", n, sparsity, 1, 1, time_s, 1.0))


def test_the_search_measures_the_targets_first_and_then_closes_in() -> None:
    grid = tuple(place / 20 for place in range(20))
    factors = {("csr", "float32"): 0.72, ("bitmask", "float32"): 0.31, ("nm:16", "float32"): 5.0}
    fake: Any = FakeSpots(factors)
    asked = Settings((1, 8), grid, ("float32",), tuple(Form.parse(text) for text in ("csr", "bitmask", "nm")), 0)
    hunt = Search(fake, asked)
    while (job := hunt.next_job()) is not None:
        fake.measure(*job)
    assert [s for pattern, s in fake.jobs if pattern == "unstructured"][:3] == [0.9, 0.8, 0.5]
    assert len(fake.jobs) == len(set(fake.jobs))
    assert len([1 for pattern, _ in fake.jobs if pattern == "unstructured"]) < 12
    for (form, _, _), ratios in hunt.ratios().items():
        found = break_even(ratios, hunt.grids[form.pattern][0], hunt.grids[form.pattern][-1])
        if form.format == "nm":
            assert found.kind == "always"
        else:
            assert found.sparsity == pytest.approx(1 - factors[str(form), "float32"], abs=1e-3)


def test_forms_that_do_not_fit_are_left_out() -> None:
    fake: Any = FakeSpots({("csr", "float32"): 1.0})
    fake.shape = (64, 90)
    hunt = Search(fake, Settings((1,), GRID, ("float32",), (Form.parse("csr"), Form.parse("nm")), 0))
    while (job := hunt.next_job()) is not None:
        fake.measure(*job)
    assert {pattern for pattern, _ in fake.jobs} == {"unstructured"}


def test_the_roofline_is_measured(small: None) -> None:
    found = measure_roofline(spots.anchor_name())
    assert found.read_bytes_per_s > 1e6
    assert found.macs_per_s > 1e6
    assert {found.read_by, found.macs_by} <= {"numpy.matmul", spots.anchor_name()}
    assert ROOF.seconds(1e10, 1e10) == 1.0
    assert ROOF.seconds(1e9, 1e11) == 1.0


@pytest.mark.parametrize(
    ("system", "processor", "cold"), [(32, 32, 48), (32, 256, 256), (512, 0, 256), (8, 16, 16)], ids=str
)
def test_cold_is_more_than_any_cache_that_anyone_claims(
    system: int, processor: int, cold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roofline.machine, "last_level_cache_bytes", lambda: system << 20)
    monkeypatch.setattr(roofline.cpu, "cpu_info", lambda: {"l3_bytes": processor << 20})
    assert roofline.cold_bytes() == cold << 20


@pytest.fixture(scope="module")
def analysis() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        yield zeroskip.analyze(shapes=[(64, 96), (32, 40)], n=(8, 1), sparsities=GRID, threads=1, budget_s=60)


def test_an_analysis_has_an_answer_for_every_kernel_there_is(analysis: Any) -> None:
    doc = json.loads(json.dumps(analysis.as_json(), allow_nan=False))
    assert doc["ns"] == [1, 8]
    assert [shape["unfit"] for shape in doc["shapes"]] == [{}, {"nm:16": "32x40 is not divided by N:16"}]
    assert sum(shape["share"] for shape in doc["shapes"]) == pytest.approx(1)
    assert analysis.failures == []
    first = doc["shapes"][0]
    assert first["complete"]
    for size in first["sizes"]:
        assert size["cold"] == (size["n"] == 1)
        there = {(curve["format"], curve["dtype"]) for curve in size["curves"]}
        wanted = {
            (text, dtype)
            for text in doc["formats"]
            for dtype in DTYPES
            if any(not spots.wrong_size(k.name, size["n"]) for k in spots.kernels_of(Form.parse(text), dtype))
        }
        assert there == wanted
        for curve in size["curves"]:
            assert curve["break_even"]["kind"] in ("from", "always", "never", "below", "above")
            assert registry.get(curve["baseline"]).format == "dense"
            for point in curve["points"]:
                assert point["speedup"] == pytest.approx(point["dense_s"] / point["time_s"])
                assert (point["bound"] is None) == ("_i32acc_" in point["kernel"] and size["n"] > 1)


def test_tables_have_a_row_for_each_shape_and_size(analysis: Any) -> None:
    rows = list(tables.summary_rows(analysis.doc))
    assert [(row["shape"], row["N"]) for row in rows] == [
        ("64x96", "1"),
        ("64x96", "8"),
        ("32x40", "1"),
        ("32x40", "8"),
    ]
    assert list(rows[0]) == ["shape", "N", *DTYPES]
    by_format = list(tables.format_rows(analysis.doc))
    assert len(by_format) == 16
    assert {row["float32"] for row in by_format if (row["shape"], row["format"]) == ("32x40", "nm:16")} == {
        "does not fit"
    }
    assert "32x40: no nm:16" in "\n".join(tables.legend(analysis.doc))
    assert rows[0]["float32"].split()[0] == analysis.doc["shapes"][0]["sizes"][0]["best"]["float32"]


def test_a_busy_machine_is_said(analysis: Any) -> None:
    cores = analysis.doc["machine"]["cores"]
    busy, idle, unknown = ("\n".join(tables.legend({**analysis.doc, "load": load})) for load in (cores, 0.1, None))
    assert "expect noise" in busy
    assert "expect noise" not in idle + unknown


def test_the_picture_and_the_page(analysis: Any, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    analysis.save_png(tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    analysis.save_html(tmp_path / "a.html")
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 1
    assert page.count("<table>") == 2
    assert "32x40, N = 1, cold" in page
    assert "http" not in page


def test_a_name_from_outside_cannot_write_the_page(analysis: Any) -> None:
    figures = pytest.importorskip("zeroskip.bench.analysis.figures")
    doc = {**analysis.doc, "model": {"name": "<script>x</script>"}}
    assert "<script>" not in figures.page(doc, "")


def test_time_that_is_up_is_said(small: None) -> None:
    found = zeroskip.analyze(shapes=[(64, 96)], n=(8,), threads=1, budget_s=1e-6)
    (shape,) = found.doc["shapes"]
    assert not shape["complete"]
    assert "time was up" in "\n".join(tables.legend(found.doc))
    kinds = {curve["break_even"]["kind"] for curve in shape["sizes"][0]["curves"]}
    assert kinds <= {"below", "above", "never"}
    seen = {point["sparsity"] for curve in shape["sizes"][0]["curves"] for point in curve["points"]}
    assert len(seen) == 1


def test_layers_of_a_model_by_shape() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Linear(16, 8), torch.nn.Linear(8, 16))
    found = layers.layers_of(model)
    assert [(item.shape, item.layers, item.share) for item in found.shapes] == [
        ((16, 8), 2, 2 / 3),
        ((8, 16), 1, 1 / 3),
    ]
    assert found.model is not None
    assert found.model["layers"] == 3
    assert found.shapes[0].example == "0"


@pytest.mark.parametrize(
    "options",
    [
        {"n": ()},
        {"n": (0,)},
        {"n": (True,)},
        {"sparsities": (1.0,)},
        {"sparsities": ()},
        {"values": ("int2",)},
        {"values": ()},
        {"formats": ()},
        {"formats": ("dense",)},
        {"shapes": []},
        {"shapes": [(0, 4)]},
        {"shapes": [(1 << 20, 1 << 20)]},
        {"budget_s": 0.0},
        {"model": "minilm", "shapes": [(4, 4)]},
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr(runner, "measure_roofline", never)
    with pytest.raises(InvalidArgument, match="analyze: "):
        zeroskip.analyze(**{"shapes": [(4, 4)], **options})


def test_the_command(small: None, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = [
        "analyze",
        "--shape",
        "64x96",
        "--n",
        "1,8",
        "--sparsity",
        "0.5,0.9",
        "--values",
        "float32",
        "--threads",
        "1",
    ]
    page = tmp_path / "a.html"
    assert main([*words, "--formats", "csr,nm:8", "--budget", "5", "--json", "--html", str(page)]) == 0
    shown = capsys.readouterr()
    doc = json.loads(shown.out)
    assert doc["formats"] == ["csr", "nm:8"]
    assert "float32" in shown.err
    assert page.stat().st_size > 1000
    assert main([*words, "--formats", "csr", "--budget", "1"]) == 0
    assert "64x96" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["minilm", "--shape", "4x4"], "does not go with MODEL"),
        (["--shape", "4x"], "not a shape"),
        (["--html", "/no/such/folder/a.html"], "cannot be written"),
    ],
)
def test_wrong_use_ends_with_2(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["analyze", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_break_even_as_text() -> None:
    assert str(BreakEven("from", 0.375)) == "38 %"
    assert search.TARGETS == (0.5, 0.8, 0.9)
