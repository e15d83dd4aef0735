"""The report: the numbers behind each figure, from rows made by hand, and the page in a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from zeroskip.bench.report import figures
from zeroskip.bench.report.data import ABOVE, BELOW, DENSE, OURS, RIVAL, bin_of, points
from zeroskip.bench.report.figures import Box, all_figures
from zeroskip.bench.report.findings import CONFIRMED, REFUTED, UNKNOWN, findings
from zeroskip.bench.report.write import COLUMNS, facts, tiles, write
from zeroskip.cli import main

from .conftest import MACHINE

LLC = 1000
KERNELS = {
    "ours": ("spmm_csr_f32_avx2", "native", "candidate", "csr"),
    "bits": ("spmm_bitmask_f32_avx2", "native", "candidate", "bitmask"),
    "mkl": ("spmm_csr_f32_mkl", "mkl", "peer", "csr"),
    "torch": ("spmm_dense_f32_torch", "torch", "dense", "dense"),
}


def row(who: str, time_s: float | None, matrix: str = "a", **fields: Any) -> dict[str, Any]:
    kernel, origin, role, form = KERNELS[who]
    n, nnz = fields.get("n", 128), fields.get("nnz", 1000)
    base = {
        "op": "spmm",
        "kernel": kernel,
        "origin": origin,
        "role": role,
        "format": form,
        "dtype": "float32",
        "layout": "columns",
        "dataset": "dlmc",
        "kind": "weights",
        "matrix": matrix,
        "model": "transformer",
        "method": "magnitude",
        "level": 0.9,
        "m": 100,
        "k": 100,
        "n": n,
        "nnz": nnz,
        "sparsity": 0.9,
        "pattern": "stored",
        "seed": 0,
        "threads": 2,
        "node": None,
        "oracle": False,
        "status": "ok" if time_s else "failed",
        "reason": None if time_s else "wrong result",
        "choice": None,
        "time_s": time_s,
        "gflops": 2 * nnz * n / time_s / 1e9 if time_s else None,
        "prepare_s": 1e-3,
        "nbytes": 400,
        "working_set": 500,
        "llc": LLC,
        "peak_gflops": 100.0,
        "bandwidth": 10.0,
        "overhead_s": 1e-7,
        "speedup": None,
        "repaid_after": None,
        "machine": MACHINE,
        "versions": {"zeroskip": "0.1.0", "torch": "2.13.0", "mkl": None},
        "commit": "0123456789ab",
        "when": "2026-01-01T12:00:00+00:00",
    }
    return base | fields


def cell(
    matrix: str, *, ours: float = 1e-4, mkl: float = 2e-4, torch: float = 4e-4, **fields: Any
) -> list[dict[str, Any]]:
    times = {"ours": ours, "mkl": mkl, "torch": torch}
    return [row(who, time_s, matrix, **{"speedup": torch / time_s} | fields) for who, time_s in times.items()]


def figure(rows: list[dict[str, Any]], name: str) -> figures.Figure:
    return next(one for one in all_figures(rows) if one.name == name)


def test_bins_are_the_surveys() -> None:
    shares = [0.49, 0.5, 0.6, 0.7999, 0.8, 0.9, 0.95, 0.98, 0.9999]
    assert [bin_of(share) for share in shares] == [
        None, "50-60 %", "60-70 %", "70-80 %", "80-90 %", "90-95 %", "95-98 %", "98-100 %", "98-100 %",
    ]  # fmt: skip


def test_a_point_has_the_best_of_each_side() -> None:
    rows = [*cell("a"), row("bits", 5e-5, "a"), *cell("b", working_set=2000), row("ours", None, "c")]
    first, second = points(rows, "spmm")
    assert (first.ours["kernel"], first.rival["origin"], first.dense["origin"]) == (
        "spmm_bitmask_f32_avx2",
        "mkl",
        "torch",
    )  # type: ignore[index]
    assert first.best["time_s"] == 5e-5  # type: ignore[index]
    assert (first.place, second.place, first.bin) == (BELOW, ABOVE, "90-95 %")
    assert points(rows, "sddmm") == []


def test_oracle_rows_are_in_no_figure_but_their_own() -> None:
    moved = row("ours", 1e-9, "a", oracle=True)
    plain, beside = all_figures(cell("a")), all_figures([*cell("a"), moved])
    assert [one.data for one in plain[:-1]] == [one.data for one in beside[:-1]]
    assert figure(cell("a"), "headroom").missing is not None
    assert figure([*cell("a"), row("ours", 0.5e-4, "a", oracle=True)], "headroom").data == [
        Box("dlmc", "N = 128", [2.0])
    ]


def test_boxes_hold_the_rates_of_their_matrices() -> None:
    graphs = {"dataset": "graphs", "kind": "graph"}
    rows = [*cell("a"), *cell("b", ours=2e-4), *cell("c", working_set=2000), *cell("g", **graphs), *cell("w", n=32)]
    rate = 2 * 1000 * 128 / 1e-4 / 1e9
    assert figure(rows, "figure18").data == [
        Box("dlmc", ABOVE, [rate]),
        Box("dlmc", BELOW, [rate / 2, rate]),
        Box("graphs", BELOW, [rate]),
    ]
    by = {(box.place, box.hue): list(box.values) for box in figure(rows, "figure19").data}
    assert by["mkl csr", "dlmc"] == [rate / 2] * 3
    assert by["zeroskip csr", "graphs"] == [rate]
    assert [(box.place, box.hue) for box in figure(rows, "figure20").data] == [
        ("90-95 %", s) for s in (OURS, RIVAL, DENSE)
    ]
    assert [box.hue for box in figure(rows, "figure21").data if box.place == "dlmc"] == ["N = 32", "N = 128"]
    assert ("dlmc, N = 32", BELOW) in [(box.place, box.hue) for box in figure(rows, "figure22").data]
    assert "zeroskip bench run" in str(figure(rows, "figure23").missing)


def test_sddmm_has_figures_of_its_own() -> None:
    rows = [one | {"op": "sddmm", "dataset": "masks", "kind": "mask"} for one in cell("a")]
    assert [box.place for box in figure(rows, "figure23").data] == ["masks"]
    assert figure(rows, "figure25").data[0].place == "90-95 %"
    assert figure(rows, "figure18").missing is not None


def test_speed_up_repaid_and_winners() -> None:
    rows = [*cell("a", repaid_after=3), *cell("b", ours=8e-4, repaid_after=None), *cell("c", ours=1e-4, repaid_after=7)]
    lines = figure(rows, "speedup-spmm").data
    assert lines[OURS] == [(pytest.approx(0.925), pytest.approx(2.25), pytest.approx(4.0), pytest.approx(4.0))]
    assert lines[RIVAL][0][2] == pytest.approx(2.0)
    assert figure(rows, "repaid-spmm").data[OURS] == ([3, 7], 1)
    data = figure(rows, "winners-spmm").data
    won = data["cells"][128, "90-95 %"]
    assert data["counts"][128, "90-95 %"] == 3
    assert won == {OURS: pytest.approx(2 / 3), RIVAL: pytest.approx(1 / 3)}


def test_roofline_counts_useful_operations_over_true_bytes() -> None:
    data = figure(cell("a"), "roofline").data
    assert data["points"] == [(2 * 1000 * 128 / 500, pytest.approx(2.56), "dlmc")]
    assert (data["peak"], data["bandwidth"]) == (100.0, 10.0)


def test_per_cent_of_peak_counts_useful_operations_of_the_best() -> None:
    boxes = figure([*cell("a"), *cell("b", n=32)], "peak").data
    assert [(box.place, box.hue) for box in boxes] == [("dlmc", "N = 32"), ("dlmc", "N = 128")]
    assert boxes[1].values == [pytest.approx(2.56)]
    assert figure(cell("a", peak_gflops=None), "peak").missing is not None


def test_rows_without_a_bandwidth_are_no_roofline() -> None:
    rows = cell("a", bandwidth=None)
    assert figure(rows, "roofline").missing is not None
    assert "Peaks of the run" not in dict(facts(rows, ""))


def test_findings_need_enough_cells_and_say_what_they_found() -> None:
    few = {one.name: one for one in findings(cell("a"))}
    assert {one.verdict for one in few.values()} == {UNKNOWN}
    rows = [one for i in range(5) for one in cell(f"w{i}")]
    graphs = {"dataset": "graphs", "kind": "graph"}
    rows += [one for i in range(5) for one in cell(f"g{i}", ours=1.5e-4, mkl=9e-4, **graphs)]
    rows += [one for i in range(5) for one in cell(f"h{i}", ours=2e-4, mkl=9e-4, working_set=5000, **graphs)]
    found = {one.name: one for one in findings(rows)}
    assert (found["H3"].verdict, found["H3"].figure[:10]) == (CONFIRMED, "1.50 times")
    assert found["H4"].verdict == "partly"
    assert (found["H5"].verdict, found["H5"].figure) == (REFUTED, "dlmc 2.6%, graphs 1.5%")
    assert found["H10"].verdict == UNKNOWN


def test_rows_of_a_device_decide_other_findings_than_those_of_a_processor() -> None:
    there: dict[str, Any] = {"device": "cuda", "peak_gflops": 1000.0}
    graphs, masks = {"dataset": "graphs", "kind": "graph"}, {"dataset": "masks", "kind": "mask"}
    rows = []
    for i in range(5):
        for n, faster in ((32, 1), (128, 2), (1024, 4)):
            own = there | {"n": n, "mkl": 1.0}
            rows += cell(f"w{i}", ours=n * 1e-6 / faster, **own) + cell(f"g{i}", ours=n * 1e-6, **own, **graphs)
        for share, faster in ((0.7, 2), (0.95, 1)):
            pair = cell(f"m{i}/{share}", ours=1e-4 / faster, mkl=1.0, sparsity=share, **there, **masks)
            pair += cell(f"n{i}/{share}", ours=1e-4, mkl=1.0, sparsity=share, **there, **graphs)
            rows += [one | {"op": "sddmm"} for one in pair]
    for one in rows:
        one["gflops"] = 2 * one["nnz"] * one["n"] / one["time_s"] / 1e9
    found = {one.name: one for one in findings(rows)}
    assert list(found) == ["H1", "H2", "H9", "H11", "H13"]
    assert (found["H2"].verdict, found["H2"].figure[:10]) == (REFUTED, "2.00 times")
    assert (found["H9"].verdict, found["H9"].figure) == (CONFIRMED, "dlmc 4.0 times, graphs 1.0 times")
    assert (found["H13"].verdict, found["H13"].figure[:10]) == (CONFIRMED, "2.00 times")
    assert found["H11"].figure == "masks 0.4%, graphs 0.3% of peak; masks 1.50 times graphs"
    both = [one.name for one in findings([*rows, *cell("a")])]
    assert both[:3] == ["H1", "H2", "H3"]
    assert {"H3", "H13"} <= set(both)


def test_the_page_names_a_device() -> None:
    rows = cell("a", machine={**MACHINE, "gpu": "A device of 132 units"})
    assert ("Device", "A device of 132 units") in facts(rows, "")
    assert "Device" not in dict(facts(cell("a"), ""))


def test_tiles_count_losses() -> None:
    rows = [*cell("a"), *cell("b", ours=3e-4)]
    shown = tiles(rows)
    assert shown[0]["value"] == f"{(2 * 2 / 3) ** 0.5:.2f}x"
    assert "slower in 1" in shown[0]["label"]
    assert "slower in 0" in shown[1]["label"]


def test_the_page_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    rows = [*cell("a"), *cell("</script><b>", n=32), row("ours", None, "broken"), row("ours", 5e-5, "a", oracle=True)]
    written = write(rows, tmp_path / "out", command="zeroskip bench run mine")
    assert [path.name for path in written if path.suffix == ".html"] == ["report.html"]
    pictures = [path for path in written if path.suffix == ".png"]
    assert {"figure18.png", "speedup-spmm.png", "roofline.png", "headroom.png"} <= {path.name for path in pictures}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    page = written[0].read_text(encoding="utf-8")
    assert "zeroskip bench run mine" in page
    assert "1 failed" in page
    assert "wrong result" in page
    assert not re.findall(r"(?:src|href)=\"(?!#)[^\"]+", page)
    assert page.count("</script>") == 2
    held = json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    back = [{**held["common"], **dict(zip(held["fields"], values, strict=True))} for values in held["rows"]]
    assert back == rows
    assert set(COLUMNS) <= set(rows[0])
    assert ("Seed", "0") in facts(rows, "")


def test_the_table_in_a_browser(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    browser = next(
        (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
    )
    if browser is None:
        pytest.skip("no chromium or chrome here")
    rows = [one for i in range(100) for one in cell(f"matrix-{i}", ours=1e-4 * (i + 1), n=32 if i % 2 else 128)]
    page = write(rows, tmp_path, pictures=False)[0]
    script = """<script>
      const at = query => document.querySelector(query);
      const say = name => {
        const told = document.createElement("p");
        told.id = name;
        told.textContent = at("#count").textContent + " | " + at("#rows tbody tr").textContent;
        document.body.append(told);
      };
      const give = (query, value, event) => { at(query).value = value; at(query).dispatchEvent(new Event(event)); };
      say("first");
      at("[data-sort=time_s]").click();
      at("[data-sort=time_s]").click();
      say("sorted");
      give("[data-filter=n]", "32", "change");
      say("filtered");
      give("#search", "matrix-7 mkl", "input");
      say("searched");
    </script></body>"""
    page.write_text(page.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    command = [
        browser,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--virtual-time-budget=5000",
        "--dump-dom",
        page.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    told = dict(re.findall(r'<p id="(\w+)">([^<]*)</p>', done.stdout))
    assert told["first"].startswith("300 of 300 rows, 200 shown")
    assert "matrix-99" in told["sorted"]
    assert told["filtered"].startswith("150 of 300 rows")
    assert "matrix-99" in told["filtered"]
    assert told["searched"].startswith("6 of 300 rows")  # 7, and those of the seventies with an odd number


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    assert main(["bench", "report", str(tmp_path / "none.jsonl")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    (tmp_path / "rows.jsonl").write_text("")
    assert main(["bench", "report", str(tmp_path)]) == 2
    assert "hold no rows" in capsys.readouterr().err
