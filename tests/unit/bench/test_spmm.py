"""`bench spmm`: operands, the check before the timing, ratios, and rows that follow the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import InvalidArgument, ShapeError, formats, testing
from zeroskip.bench import operands, schema, spmm
from zeroskip.bench.operands import Expected, Problem, vectors
from zeroskip.bench.rows import compare, worst_error
from zeroskip.bench.selection import meant_for, select
from zeroskip.bench.spmm import SpmmSettings, bench_spmm
from zeroskip.bench.summary import summarise
from zeroskip.bench.tables import row_groups, spmm_summary, table
from zeroskip.cli import main
from zeroskip.kernels import registry
from zeroskip.kernels._base import KernelInfo

PATTERNS = ["unstructured", "2:4", "8:16", "block:4x2", "vnm:4x4:8"]


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cold weights without megabytes of copies."""
    monkeypatch.setattr(spmm.machine, "last_level_cache_bytes", lambda: 50_000)
    monkeypatch.setattr(spmm.machine, "claimed_cache_bytes", lambda: 0)


def problem(pattern: str = "unstructured", dtype: str = "float32", shape: tuple[int, int] = (48, 32)) -> Problem:
    return Problem(shape, 0.5, pattern, dtype, 0)


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", formats.DTYPES)
def test_operands_keep_pattern_and_sparsity(pattern: str, dtype: str) -> None:
    asked = problem(pattern, dtype)
    a = asked.matrix()
    assert a.dtype == dtype
    assert a.nnz == 48 * 32 // 2
    assert a.scales is not None or np.count_nonzero(a.to_dense()) == a.nnz
    assert a.name == {"2:4": "nm", "8:16": "nm", "block:4x2": "bsr", "vnm:4x4:8": "vnm"}.get(pattern, "csr")
    np.testing.assert_array_equal(a.to_dense(), asked.matrix().to_dense())


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize(
    ("dtype", "x_dtype"), [("float32", "float32"), ("int8", "float32"), ("int4", "int8"), ("bfloat16", "bfloat16")]
)
def test_the_bound_is_that_of_the_conformance_tests(
    pattern: str, dtype: str, x_dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = problem(pattern, dtype)
    a, b = asked.matrix(), vectors(0, 32, 5)
    theirs = testing.bound(a, b, x_dtype=x_dtype, rounded_x=True)
    for limit in (operands.DENSE_ELEMS, 1):
        monkeypatch.setattr(operands, "DENSE_ELEMS", limit)
        ours = Expected(a).bound(b, x_dtype=x_dtype)
        np.testing.assert_allclose(ours.expected, theirs.expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(ours.allowed, theirs.allowed, rtol=1e-9)


def test_a_pattern_that_does_not_fit_is_refused_before_anything_runs() -> None:
    with pytest.raises(ShapeError, match="multiple of 4"):
        next(bench_spmm(SpmmSettings(shapes=[(8, 6)], sparsities=[0.5], pattern="2:4")))


def test_a_matrix_without_entries_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="leaves nothing"):
        Problem((4, 4), 0.99, "unstructured", "float32", 0).check()


def rows_of(**changes: Any) -> list[dict[str, Any]]:
    asked: dict[str, Any] = {"shapes": [(48, 32)], "sparsities": [0.5], "ns": [1, 8], "budget_s": 0.05, "rounds": 2}
    return list(bench_spmm(SpmmSettings(**{**asked, **changes})))


def test_rows_follow_the_schema_and_compare_with_dense() -> None:
    rows = rows_of(kernels=["all"], peers=["numpy", "scipy"])
    assert {row["n"] for row in rows} == {1, 8}
    for row in rows:
        schema.check_row(json.loads(json.dumps(row, allow_nan=False)))
        assert row["status"] in ("ok", "skipped"), row["reason"]
    for n in (1, 8):
        group = [row for row in rows if row["n"] == n and row["status"] == "ok"]
        dense = [row for row in group if row["role"] == "dense"]
        assert sorted(row["layout"] for row in dense) == ["columns", "rows"]
        fastest = min(row["time_s"] for row in dense)
        for row in group:
            assert row["speedup"] == pytest.approx(fastest / row["time_s"])
            assert row["gflops"] == pytest.approx(2 * row["nnz"] * n / row["time_s"] / 1e9)
            assert row["torch_speedup"] is None
            assert row["cold"] == (n == 1)
            assert row["time_min_s"] <= row["time_q10_s"] <= row["time_s"] <= row["time_q90_s"]
        assert {row["role"] for row in group} == {"candidate", "dense", "peer"}


def test_cold_weights_go_round_copies() -> None:
    rows = rows_of(kernels=["spmm_csr_f32_scalar"], peers=["none"], ns=[1, 4])
    assert [row["copies"] > 1 for row in rows] == [True, False]
    assert rows[0]["copies"] * rows[0]["nbytes"] >= 100_000


def test_a_larger_cache_that_the_processor_claims_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spmm.machine, "claimed_cache_bytes", lambda: 300_000)
    row = rows_of(kernels=["spmm_csr_f32_scalar"], peers=["none"], ns=[1])[0]
    assert row["copies"] * row["nbytes"] >= 300_000


def test_tiny_matrices_are_made_cold_by_sweeping(monkeypatch: pytest.MonkeyPatch) -> None:
    swept = []
    monkeypatch.setattr(spmm, "MAX_COPIES", 2)
    monkeypatch.setattr(spmm, "_walk", lambda: swept.append(1))
    rows = rows_of(kernels=["spmm_csr_f32_scalar", "spmm_dense_f32_scalar"], peers=["none"], ns=[1])
    assert [row["copies"] for row in rows] == [1, 1]
    assert len(swept) > sum(row["samples"] for row in rows)


def test_where_one_kernel_is_too_small_for_copies_the_caches_are_swept_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dense weights of 6 kB have enough copies with 20; a tenth of that does not."""
    monkeypatch.setattr(spmm, "MAX_COPIES", 20)
    kernels = ["spmm_dense_f32_scalar", "spmm_csr_f32_scalar"]
    sizes = {row["kernel"]: row["nbytes"] for row in rows_of(kernels=kernels, peers=["none"], ns=[4], sparsities=[0.9])}
    monkeypatch.setattr(spmm.machine, "last_level_cache_bytes", lambda: 5 * sum(sizes.values()))
    alone = rows_of(kernels=kernels[:1], peers=["none"], ns=[1], sparsities=[0.9])
    together = rows_of(kernels=kernels, peers=["none"], ns=[1], sparsities=[0.9])
    assert min(sizes.values()) * 20 < 10 * sum(sizes.values()) < max(sizes.values()) * 20
    assert alone[0]["copies"] > 1
    assert [row["copies"] for row in together] == [1, 1]


def test_a_rival_that_is_not_installed_is_a_row_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(registry.get("spmm_csr_f32_scipy")), "why_not", lambda self: "scipy is not installed")
    rows = rows_of(kernels=["spmm_csr_f32_scalar"], peers=["scipy"], ns=[4])
    skipped = next(row for row in rows if row["origin"] == "scipy")
    assert (skipped["status"], skipped["reason"]) == ("skipped", "scipy is not installed")
    assert skipped["time_s"] is None


class WrongKernel(KernelInfo):
    """Gives a result that is wrong in one element, or raises."""

    def why_not(self) -> str | None:
        return None

    def prepare(self, a: formats.SparseMatrix) -> WrongKernel:
        if self.dtype == "float32" and self.isa == "raises":
            raise RuntimeError("out of luck")
        self.__dict__["dense"] = a.to_dense()
        self.__dict__["runs"] = self.__dict__.get("runs", 0)
        return self

    nbytes = 1

    def run(self, x: Any, out: Any, *, bias: Any = None, activation: Any = None, transposed: bool = False) -> None:
        self.__dict__["runs"] += 1
        np.matmul(self.__dict__["dense"], x, out=out)
        out[3, 2] = np.nan if self.isa == "nan" else out[3, 2] + 0.01


@pytest.mark.parametrize(
    ("isa", "says"), [("off", "times its bound"), ("nan", "not a number"), ("raises", "RuntimeError: out of luck")]
)
def test_a_wrong_kernel_is_a_failed_row_and_never_timed(
    isa: str, says: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = WrongKernel("spmm_wrong_f32_test", "csr", "float32", isa, "native")
    registry.names()
    monkeypatch.setitem(registry._items, wrong.name, wrong)
    rows = rows_of(kernels=[wrong.name], peers=["numpy"], ns=[4])
    row = next(row for row in rows if row["kernel"] == wrong.name)
    assert row["status"] == "failed"
    assert says in row["reason"]
    assert row["time_s"] is None
    assert wrong.__dict__.get("runs", 0) == (0 if isa == "raises" else 1)
    out = tmp_path / "rows.jsonl"
    words = ["--shape", "48x32", "--sparsity", "0.5", "--n", "4", "--budget", "0.02", "--peers", "none"]
    assert main(["bench", "spmm", *words, "--kernels", wrong.name, "--out", str(out), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["rows"][0]["status"] == "failed"
    assert json.loads(out.read_text())["status"] == "failed"


def test_worst_error() -> None:
    reference, bound = np.array([[1.0, 0.0]]), np.array([[0.5, 0.0]])
    assert worst_error(np.array([[1.25, 0.0]], np.float32), reference, bound) == 0.5
    assert worst_error(np.array([[1.0, 1e-30]], np.float32), reference, bound) == float("inf")
    assert worst_error(np.array([[np.nan, 0.0]], np.float32), reference, bound) == float("inf")


def names(kernels: list[str], peers: list[str], dtype: str = "float32") -> set[str]:
    return {kernel.name for kernel, _ in select(kernels, peers, dtype)}


def test_names_globs_and_unknown_ones() -> None:
    assert names(["spmm_csr_f32_*"], ["none"]) == {
        kernel.name for kernel in registry if kernel.name.startswith("spmm_csr_f32_")
    }
    assert "spmm_dense_f32_numpy" in names(["spmm_csr_f32_scalar"], ["auto"])
    assert names(["spmm_csr_f32_scalar"], ["none"]) == {"spmm_csr_f32_scalar"}
    with pytest.raises(InvalidArgument, match="'magic' is not known"):
        select(["magic"], ["auto"], "float32")
    with pytest.raises(InvalidArgument, match="peer 'magic' is not known"):
        select(["auto"], ["magic"], "float32")


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_auto_takes_the_newest_of_each_kernel(dtype: str) -> None:
    chosen = {kernel.name: kernel for kernel, role in select(["auto"], ["none"], dtype)}
    assert {kernel.dtype for kernel in chosen.values()} == {dtype}
    assert all(kernel.why_not() is None for kernel in chosen.values())
    usable = [k for k in registry if k.origin == "native" and k.dtype == dtype and k.why_not() is None]
    assert {kernel.format for kernel in chosen.values()} == {kernel.format for kernel in usable}
    older = [k.name for k in usable if k.isa == "scalar" and k.name.replace("scalar", "avx2") in chosen]
    assert not set(older) & set(chosen)


@pytest.mark.parametrize(
    ("name", "sizes"), [("spmm_csr_f32_avx2_n1", [1]), ("spmm_csr_f32_avx2_n16", [2, 16]), ("spmm_x", [1, 2, 16, 17])]
)
def test_kernels_made_for_a_number_of_columns(name: str, sizes: list[int]) -> None:
    kernel = KernelInfo(name, "csr", "float32", "avx2", "native")
    assert [n for n in (1, 2, 16, 17) if meant_for(kernel, n)] == sizes


def row() -> dict[str, Any]:
    return rows_of(kernels=["spmm_csr_f32_scalar"], peers=["none"], ns=[4])[0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"extra": 1}, "not known"),
        ({"schema_version": 99}, "zeroskip.bench.spmm 99"),
        ({"n": "4"}, "n is '4'"),
        ({"n": True}, "n is True"),
        ({"time_s": float("nan")}, "time_s is nan"),
        ({"time_s": None}, "time_s is None"),
        ({"status": "fine"}, "status is 'fine'"),
        ({"status": "failed"}, "say why"),
        ({"error_over_bound": 1.5}, "at most 1"),
        ({"choice": "liked"}, "choice is 'liked'"),
        ({"x_dtype": None}, "x_dtype is None"),
    ],
)
def test_the_schema_refuses(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument, match=says):
        schema.check_row({**row(), **changes})


def test_a_missing_field_is_named() -> None:
    short = row()
    del short["gflops"]
    with pytest.raises(InvalidArgument, match="gflops"):
        schema.check_row(short)


def test_every_field_of_the_schema_is_documented() -> None:
    text = (Path(__file__).parents[3] / "docs" / "benchmark.md").read_text(encoding="utf-8")
    missing = [name for name in schema.FIELDS if f"| `{name}` |" not in text]
    assert missing == []


def test_ratios_without_torch_or_without_dense() -> None:
    rows: list[dict[str, Any]] = [
        {"status": "ok", "role": "candidate", "origin": "native", "kernel": "k", "layout": "columns", "time_s": 1.0},
        {"status": "failed", "role": "dense", "origin": "torch", "kernel": "t", "layout": "rows", "time_s": None},
    ]
    for row in rows:
        row["device"] = "cpu"
    compare(rows)
    assert "speedup" not in rows[0]
    rows[0]["prepare_s"], rows[1]["prepare_s"] = 5.0, 1.0
    rows[1].update(status="ok", time_s=3.0)
    compare(rows)
    assert (rows[0]["speedup"], rows[0]["torch_speedup"], rows[0]["dense_kernel"]) == (3.0, 3.0, "t (rows)")
    assert [row["repaid_after"] for row in rows] == [3, None]  # 5 s to prepare, 2 s won by each call


def test_the_command_prints_json_alone_and_writes_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "rows.jsonl"
    words = ["--shape", "48x32", "--sparsity", "0.5,0.75", "--n", "4", "--budget", "0.02", "--peers", "numpy", "--json"]
    assert main(["bench", "spmm", *words, "--kernels", "spmm_csr_f32_scalar", "--out", str(out)]) == 0
    shown = capsys.readouterr()
    document = json.loads(shown.out)
    rows = document["rows"]
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows
    assert [line["level"] for line in document["summary"]["ratios"]] == [0.5, 0.75, "all"]
    assert {item["sparsity"] for item in rows} == {0.5, 0.75}
    assert "our best against" in shown.err
    assert "thread" in shown.err


def test_tables() -> None:
    rows = rows_of(kernels=["spmm_csr_f32_scalar"], peers=["numpy"], ns=[1, 4])
    titles = [title for title, _ in row_groups(rows)]
    assert titles == [
        "48x32, 50 % zeros (unstructured), N = 1, cold weights",
        "48x32, 50 % zeros (unstructured), N = 4",
    ]
    assert "best dense of all" in spmm_summary(rows)
    assert table([]) == "(none)"
    assert table([{"name": "a", "n": "10"}, {"name": "bcd", "n": "5"}]).splitlines() == [
        "name   n",
        "----  --",
        "a     10",
        "bcd    5",
    ]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_rival_that_rounds_b_is_no_baseline(dtype: str) -> None:
    """Only where it is named, in both layouts, held against the product of the rounded operands."""
    pytest.importorskip("torch")
    rows = rows_of(kernels=["auto", "spmm_dense_bf16_torch"], peers=["torch", "numpy"], dtype=dtype)
    rounded = [row for row in rows if row["kernel"] == "spmm_dense_bf16_torch"]
    assert {(row["n"], row["layout"]) for row in rounded} == {(n, way) for n in (1, 8) for way in ("columns", "rows")}
    assert {(row["role"], row["x_dtype"], row["status"], row["choice"]) for row in rounded} == {
        ("rounded", "bfloat16", "ok", None)
    }
    assert all("bf16" not in row["dense_kernel"] for row in rows if row["status"] == "ok")
    line = summarise(rows)["ratios"][0]
    times = [row["time_s"] for row in rounded if row["n"] == 1]
    ours = min(row["time_s"] for row in rows if row["n"] == 1 and row["role"] == "candidate" and row["status"] == "ok")
    assert line["ours"]["torch dense bfloat16"] == pytest.approx(min(times) / ours)
    assert "spmm_dense_bf16_torch" not in {kernel.name for kernel, _ in select(["auto"], ["all"], dtype)}


def test_what_is_timed_of_it_is_what_was_checked() -> None:
    torch = pytest.importorskip("torch")
    a, x = testing.random_matrix((33, 65), 0.5, seed=1), vectors(0, 65, 9)
    prepared = registry.get("spmm_dense_bf16_torch").prepare(a)
    for transposed in (False, True):
        given = np.ascontiguousarray(x.T) if transposed else x
        out = np.empty((9, 33) if transposed else (33, 9), np.float32)
        prepared.run(given, out, transposed=transposed)
        call = spmm._call(prepared, given, np.empty(0, np.float32), transposed)
        assert call().dtype == torch.bfloat16
        np.testing.assert_array_equal(call().float().numpy(), out)
