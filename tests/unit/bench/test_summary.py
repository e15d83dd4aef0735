"""Summaries of `bench spmm`: means over cells, and what the choice cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zeroskip import InvalidArgument
from zeroskip.bench import spmm
from zeroskip.bench.schema import read_rows
from zeroskip.bench.spmm import SpmmSettings, bench_spmm
from zeroskip.bench.summary import cells, geometric_mean, summarise
from zeroskip.bench.tables import row_ratios, spmm_choice, spmm_files
from zeroskip.cli import main


@pytest.fixture(autouse=True)
def small_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spmm.machine, "last_level_cache_bytes", lambda: 50_000)
    monkeypatch.setattr(spmm.machine, "claimed_cache_bytes", lambda: 0)


def row(kernel: str, time_s: float | None, **fields: Any) -> dict[str, Any]:
    role, origin, form = {
        "ours": ("candidate", "native", "csr"),
        "ours2": ("candidate", "native", "bitmask"),
        "torch": ("dense", "torch", "dense"),
        "numpy": ("dense", "numpy", "dense"),
        "mkl": ("peer", "mkl", "csr"),
        "scipy": ("peer", "scipy", "csr"),
    }[kernel]
    base = {
        "kernel": kernel,
        "dtype": "float32",
        "time_s": time_s,
        "status": "ok",
        "role": role,
        "origin": origin,
        "format": form,
    }
    where = {
        "m": 8,
        "k": 8,
        "n": 4,
        "sparsity": 0.5,
        "pattern": "unstructured",
        "dtype": "float32",
        "layout": "columns",
    }
    of_file = {"matrix": None, "model": None, "method": None, "level": None, "choice": None}
    return {"time_q10_s": time_s, **base, **where, **of_file, **fields}


def two_shapes() -> list[dict[str, Any]]:
    """In the first cell auto takes the best kernel, in the second one that is 1.5 times slower and loses to dense."""
    return [
        row("ours", 1.0, choice="taken"),
        row("ours2", 2.0, choice="considered"),
        row("torch", 4.0, choice="considered"),
        row("torch", 3.0, layout="rows"),
        row("mkl", 8.0),
        row("ours", 2.0, m=16, choice="considered"),
        row("ours2", 3.0, m=16, choice="taken"),
        row("torch", 2.5, m=16),
        row("mkl", 6.0, m=16),
        row("scipy", 4.0, m=16),  # not in the other cell: counts for the best sparse rival, and has no mean of its own
        row("numpy", None, m=16, status="failed"),
    ]


def test_geometric_means_over_cells() -> None:
    found = summarise(two_shapes())["ratios"]
    assert len(found) == 1
    line = found[0]
    assert (line["n"], line["method"], line["level"], line["cells"]) == (4, "unstructured", 0.5, 2)
    ours = {"torch dense": 3.0 * 1.25, "best dense": 3.0 * 1.25, "mkl csr": 8.0 * 3.0, "best sparse": 8.0 * 2.0}
    assert line["ours"] == pytest.approx({name: ratio**0.5 for name, ratio in ours.items()})
    assert line["auto"]["best dense"] == pytest.approx((3.0 * 2.5 / 3.0) ** 0.5)


def test_what_the_choice_cost() -> None:
    found = summarise(two_shapes())
    choice, lowest = found["choice"], found["lowest"]
    assert choice["geometric_mean"] == pytest.approx(1.5**0.5)
    assert (choice["cells"], choice["worst"], choice["total"]) == (2, 1.5, pytest.approx(4 / 3))
    assert choice["worst_kernels"] == ["ours2", "ours"]
    assert "16x8" in choice["worst_cell"]
    assert (lowest["ratio"], lowest["kernel"], lowest["cells"]) == (pytest.approx(2.5 / 3.0), "ours2", 2)
    sentences = list(spmm_choice(found))
    assert "at worst 1.50 times, at 16x8, 50 % zeros, N = 4: ours2, not ours" in sentences[0]
    assert sentences[2] == (
        "auto against the best dense product of the run: 0.83 times as fast where it is slowest beside it, at 16x8, "
        "50 % zeros, N = 4: ours2 against torch, which plan could not take (plan does not weigh torch); 1 of 2 cells "
        "are below 0.97"
    )


def test_what_plan_cannot_take_is_no_best_single_kernel() -> None:
    rows = [row("torch", 1.0, layout="rows"), row("torch", 3.0, choice="taken"), row("ours", 4.0, choice="considered")]
    assert summarise(rows)["choice"]["worst"] == 1.0
    lowest = summarise(rows)["lowest"]
    assert (lowest["ratio"], lowest["below"], lowest["rival"]) == (pytest.approx(1 / 3), 1, "torch (rows)")
    assert lowest["not_weighed"] == "plan weighs it in columns, not in rows"
    assert (lowest["weighed"]["ratio"], lowest["weighed"]["not_weighed"]) == (1.0, None)


def test_a_rival_that_plan_does_not_weigh_is_said() -> None:
    rows = [row("ours", 1.0, choice="taken"), row("torch", 1.1, choice="considered"), row("numpy", 0.5)]
    lowest = summarise(rows)["lowest"]
    assert (lowest["ratio"], lowest["not_weighed"]) == (0.5, "plan does not weigh numpy")
    assert (lowest["weighed"]["ratio"], lowest["weighed"]["rival"]) == (pytest.approx(1.1), "torch")
    assert (
        "which plan could not take (plan does not weigh numpy); 1 of 1 cells" in list(spmm_choice(summarise(rows)))[2]
    )


def test_95_percent_of_the_cells_and_tenth_percentiles() -> None:
    """Of 40 cells the choice is bad in three, by medians; by tenth percentiles in one."""
    rows = []
    for m in range(1, 41):
        off = {1: 2.0, 2: 1.5, 3: 1.2}.get(m, 1.0)
        rows.append(row("ours", off, m=m, choice="taken", time_q10_s=0.9 * (off if m == 1 else 1.0)))
        rows.append(row("ours2", 1.0, m=m, choice="considered", time_q10_s=0.9))
    choice = summarise(rows)["choice"]
    assert (choice["worst"], choice["p95"]) == (2.0, 1.2)
    tenths = choice["tenths"]
    assert (tenths["worst"], tenths["p95"]) == (pytest.approx(2.0), pytest.approx(1.0))
    assert tenths["geometric_mean"] == pytest.approx(2 ** (1 / 40))
    assert "95 % of the cells at most 1.20 times, at worst 2.00 times" in next(spmm_choice(summarise(rows)))


def test_cells_without_zeros() -> None:
    rows = [row("ours", 2.0, sparsity=0.0, choice="considered"), row("torch", 1.0, sparsity=0.0, choice="taken")]
    summary = summarise(rows)
    assert [line["level"] for line in summary["ratios"]] == [0.0]
    assert "0 %" in row_ratios(summary).splitlines()[-1]
    assert "8x8, 0 % zeros, N = 4" in next(spmm_choice(summary))
    assert summary["lowest"]["ratio"] == 1.0


def test_without_auto_and_without_rivals() -> None:
    found = summarise([row("ours", 1.0)])
    assert found["ratios"][0]["ours"] == found["ratios"][0]["auto"] == {}
    assert found["choice"] is found["lowest"] is None
    assert list(spmm_choice(found)) == []
    assert summarise([]) == {"ratios": [], "choice": None, "lowest": None}


def test_methods_levels_and_all_of_them() -> None:
    rows = []
    for method, level, time_s in (("a", 0.5, 1.0), ("a", 0.9, 2.0), ("b", 0.5, 4.0)):
        of_file = {"matrix": f"m/{method}/{level}/x", "model": "m", "method": method, "level": level}
        rows += [row("ours", time_s, sparsity=0.47, **of_file), row("mkl", 8.0, sparsity=0.47, **of_file)]
    summary = summarise(rows)
    found = {(line["method"], line["level"]): line["ours"]["mkl csr"] for line in summary["ratios"]}
    assert found == pytest.approx(
        {("a", 0.5): 8.0, ("a", 0.9): 4.0, ("a", "all"): 32**0.5, ("b", 0.5): 2.0, ("all", "all"): 4.0}
    )
    assert row_ratios(summary).splitlines()[-2].split() == ["b", "50", "%", "4", "1", "our", "best", "2.00x", "2.00x"]
    assert spmm_files(rows).splitlines()[-1].startswith("m/b/0.5/x")


def test_geometric_mean() -> None:
    assert geometric_mean([2.0, 8.0]) == pytest.approx(4.0)


def test_cells_of_a_run_say_what_plan_took() -> None:
    asked = SpmmSettings(
        shapes=[(64, 48), (32, 64)], sparsities=[0.9], ns=[1, 8], peers=["numpy"], budget_s=0.05, rounds=2
    )
    found = cells(bench_spmm(asked))
    assert len(found) == 4
    for cell in found:
        taken = [item for item in cell.rows if item["choice"] == "taken"]
        assert len(taken) == 1
        assert taken[0]["layout"] == "columns"
        assert any(item["choice"] == "considered" for item in cell.rows)


def test_quantised_kernels_beside_a_float32_baseline() -> None:
    asked = SpmmSettings(
        shapes=[(64, 64)], ns=[1], sparsities=[0.5], pattern="8:16", dtype="int8", group=32, peers=["numpy"],
        budget_s=0.05, rounds=2,
    )  # fmt: skip
    rows = [item for item in bench_spmm(asked) if item["status"] == "ok"]
    integer = {item["kernel"].split("_")[1]: item for item in rows if item["x_dtype"] == "int8"}
    assert set(integer) == {"nm", "bitmask", "dense"}
    assert {item["group"] for item in rows} == {32}
    assert {item["dtype"] for item in rows if item["role"] == "dense"} == {"float32"}
    assert integer["nm"]["speedup"] > 0
    assert {item["choice"] for item in integer.values()} <= {"taken", "considered"}
    assert cells(rows)[0].dtype == "int8"


def test_several_runs_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files, runs = [], []
    for name, dtype in (("a", "float32"), ("b", "float16")):
        files.append(str(tmp_path / name))
        words = ["--shape", "32x48", "--sparsity", "0,0.5", "--n", "4", "--dtype", dtype, "--budget", "0.02"]
        assert main(["bench", "spmm", *words, "--peers", "numpy", "--rounds", "1", "--out", files[-1], "--json"]) == 0
        runs.append(json.loads(capsys.readouterr().out)["rows"])
    assert main(["bench", "summary", *files, "--json"]) == 0
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found == summarise(*runs)
    assert found["choice"]["cells"] == 4
    assert found["lowest"]["cells"] == 4
    assert [(line["dtype"], line["level"]) for line in found["ratios"]] == [
        (dtype, level) for dtype in ("float16", "float32") for level in (0.0, 0.5, "all")
    ]
    assert "auto against the best dense product of the run" in shown.err


@pytest.mark.parametrize("content", [b"{}", b"[]", b"no", b"\xff", b"[" * 100_000])
def test_a_file_without_rows_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(InvalidArgument, match="bench summary: "):
        read_rows(tmp_path / "a")
    with pytest.raises(InvalidArgument, match="cannot be read"):
        read_rows(tmp_path / "none")
