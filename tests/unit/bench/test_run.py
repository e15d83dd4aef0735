"""`bench run`: suites, turns, budgets, and going on after an interruption."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import InvalidArgument, datasets, kernels
from zeroskip.bench import cluster, compare, limits, run, schema, sddmm, spmm, suites
from zeroskip.bench.rows import compare as compare_rows
from zeroskip.bench.run import RunSettings, in_turns
from zeroskip.bench.stored import EntryProblem, OracleProblem
from zeroskip.bench.suites import Set, Suite
from zeroskip.bench.summary import cells, summarise
from zeroskip.cli import main
from zeroskip.datasets import Entry, FileSet
from zeroskip.formats import CSR
from zeroskip.kernels._base import KernelInfo
from zeroskip.kernels.peers._prepared import DensePeer

METHODS = ("magnitude", "random")


@dataclass(frozen=True)
class Elsewhere(DensePeer):
    """A product that another device would compute, by whose clock each takes a quarter of a second."""

    def compute(self, x: Any, out: Any, bias: Any, activation: str | None, transposed: bool) -> None:
        np.matmul(x if transposed else self.weight, self.weight.T if transposed else x, out=out)

    def on(self, x: Any, transposed: bool) -> Callable[[], None]:
        return lambda: None

    @staticmethod
    def seconds(call: Callable[[], Any]) -> float:
        call()
        return 0.25


@dataclass(frozen=True)
class OnAnotherDevice(KernelInfo):
    device: str = "cuda"

    def why_not(self) -> None:
        """It runs."""

    def prepare(self, a: Any) -> Elsewhere:
        return Elsewhere(self.name, a.to_dense())


def matrix(name: str) -> CSR:
    random = np.random.default_rng(len(name))
    return CSR.from_dense((random.random((24, 32)) < 0.3).astype(np.float32))


@pytest.fixture(autouse=True)
def small_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set of six small matrices called `small`, and limits that take no time."""

    def entry(method: str, number: int) -> Entry:
        name = f"{method}/{number}"
        return Entry(name, "small", "weights", lambda seed: matrix(name), "model", method, 0.7, (24, 32))

    entries = [entry(method, number) for method in METHODS for number in range(3)]
    small = FileSet("small", "six matrices", "weights", "CC0-1.0", None, lambda: entries, ())
    missing = FileSet("missing", "none", "graph", "CC0-1.0", None, list, ("no such file",))
    assert datasets.registry.get("dlmc")  # what there is has been found
    for one in (small, missing):
        monkeypatch.setitem(datasets.registry._items, one.name, one)
    found = {"peak_gflops": 100.0, "bandwidth": 10.0, "llc": 2**20, "overhead_s": 1e-7}
    monkeypatch.setattr(limits, "fields", lambda threads: found)
    monkeypatch.setattr(run, "bind", lambda threads: "0-1")
    monkeypatch.setattr(spmm.machine, "last_level_cache_bytes", lambda: 50_000)
    monkeypatch.setattr(spmm.machine, "claimed_cache_bytes", lambda: 0)


def suite(**changes: Any) -> Suite:
    given = {"dataset": "small", "n": (2, 3), "peers": ("numpy",), "seconds": 0.0, "rounds": 1} | changes
    return Suite("mine", "A title", "", (Set(**given),))


def rows_of(folder: Path) -> list[dict[str, Any]]:
    return schema.read_rows(folder / run.ROWS)


def test_every_cell_is_measured_once_and_its_rows_follow_the_schema(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    out = tmp_path / "out"
    outcome = run.run(RunSettings(suite(), out), progress=lambda *at: seen.append(at))
    rows = rows_of(out)
    assert (outcome.total, outcome.done, outcome.kept) == (12, 12, 0)
    assert seen[-1] == ("bench run", 12, 12)
    assert {(row["matrix"], row["n"]) for row in rows} == {
        (f"{m}/{i}", n) for m in METHODS for i in range(3) for n in (2, 3)
    }
    for row in rows:
        assert (row["suite"], row["dataset"], row["kind"], row["model"]) == ("mine", "small", "weights", "model")
        assert (row["cpus"], row["node"], row["peak_gflops"], row["oracle"]) == ("0-1", None, 100.0, False)
        assert row["status"] == "ok"
        assert row["working_set"] == row["nbytes"] + 4 * row["n"] * (24 + 32)
    assert len(cells(rows)) == 12


def test_a_run_goes_on_where_it_was_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, settings = tmp_path / "out", RunSettings(suite(), tmp_path / "out")
    real, calls = spmm.measure, []

    def stops(group: Any) -> Any:
        calls.append(group.n)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(group)

    monkeypatch.setattr(run.spmm, "measure", stops)
    with pytest.raises(KeyboardInterrupt):
        run.run(settings)
    before = (out / run.ROWS).read_text()
    assert len(cells(rows_of(out))) == 3
    outcome = run.run(settings)
    assert (outcome.kept, outcome.done) == (3, 9)
    assert (out / run.ROWS).read_text().startswith(before)
    assert len(cells(rows_of(out))) == 12
    assert run.run(settings).done == 0


def test_a_cell_that_was_cut_off_while_it_was_written_is_measured_again(tmp_path: Path) -> None:
    settings = RunSettings(suite(), tmp_path / "out")
    run.run(settings)
    path = tmp_path / "out" / run.ROWS
    path.write_text(path.read_text()[:-100])
    assert len({(row["matrix"], row["n"]) for row in run.read(tmp_path / "out")}) == 11
    outcome = run.run(settings)
    assert (outcome.kept, outcome.done) == (11, 1)
    assert len(cells(rows_of(tmp_path / "out"))) == 12


def test_a_budget_ends_a_run_and_is_shared_among_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, given = [0.0], []
    monkeypatch.setattr(run.time, "perf_counter", lambda: now[0])

    def measure(item: Any, seed: int, threads: int, seconds: float, common: Any, say: Any) -> Iterator[list[Any]]:
        given.append(seconds)
        now[0] += (seconds + 1.0) * len(item.ns)  # a second for each beside the timing
        yield from ([],) * len(item.ns)

    monkeypatch.setattr(run, "measure", measure)
    outcome = run.run(RunSettings(suite(seconds=0.5), tmp_path / "out", budget_s=18.0))
    assert outcome.done == 12
    assert given[0] == pytest.approx(18 / 12)
    assert 12 * 1.0 + 2 * sum(given) == pytest.approx(18.0, rel=0.1)
    now[0], short = 0.0, run.run(RunSettings(suite(seconds=0.5), tmp_path / "other", budget_s=5.0))
    assert 4 <= short.done < 12
    assert min(given) == run.LEAST_S


def test_turns_see_every_stratum_early() -> None:
    own = suite().sets[0]
    items = [run.Item(own, entry, own.n) for entry in datasets.registry.get("small").entries()]
    order = in_turns(items, 0)
    other = Set(dataset="other")
    several = [*items, *(replace(item, set=other, entry=replace(item.entry, dataset="other")) for item in items[:2])]
    assert {item.entry.dataset for item in in_turns(several, 0)[:2]} == {"small", "other"}
    assert {item.entry.method for item in order[:2]} == set(METHODS)
    assert sorted(item.entry.name for item in order) == sorted(item.entry.name for item in items)
    assert in_turns(items, 0) == order


def test_oracle_rows_have_the_same_counts_and_never_count(tmp_path: Path) -> None:
    entry = datasets.registry.get("small").entries()[0]
    a, moved = (
        kind.matrix() for kind in (EntryProblem(entry, "float32", 0), OracleProblem(EntryProblem(entry, "float32", 0)))
    )
    np.testing.assert_array_equal(moved.indptr, a.indptr)
    np.testing.assert_array_equal(moved.data, a.data)
    assert all(list(moved.indices[i:j]) == list(range(j - i)) for i, j in zip(a.indptr[:-1], a.indptr[1:], strict=True))
    run.run(RunSettings(suite(oracle=True, limit=1, n=(4,)), tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    assert {row["oracle"] for row in rows} == {True, False}
    assert all(row["role"] == "candidate" for row in rows if row["oracle"])
    assert not any(row["oracle"] for cell in cells(rows) for row in cell.rows)


def test_sddmm_rows_are_checked_and_compared(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run.run(RunSettings(suite(op="sddmm", peers=("all",), limit=1, n=(5,)), tmp_path / "out"))
    rows = rows_of(tmp_path / "out")
    names = {row["kernel"] for row in rows if row["status"] == "ok"}
    assert {"sddmm_csr_f32_torch", "sddmm_csr_f32_torch_dense", "sddmm_csr_f32_numpy"} < names
    assert {row["format"] for row in rows if row["origin"] == "native"} == {"csr", "bitmask"}
    for row in rows:
        assert row["op"] == "sddmm"
        assert row["gflops"] == pytest.approx(2 * row["nnz"] * 5 / row["time_s"] / 1e9)
        assert row["speedup"] is not None


def test_a_wrong_sddmm_is_a_failed_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = sddmm.select(("auto",), ("none",))[0]
    broken = replace(known, function=lambda pattern, a, b, out, values, alpha: out.fill(1.0), bind=None)
    raising = replace(known, name="raising", function=lambda *args: 1 // 0, bind=None)
    monkeypatch.setattr(sddmm, "select", lambda wanted, peers, device: [broken, raising])
    run.run(RunSettings(suite(op="sddmm", limit=1, n=(5,)), tmp_path / "out"))
    assert [row["status"] for row in rows_of(tmp_path / "out")] == ["failed", "failed"]
    assert [
        "wrong result" in row["reason"] or "ZeroDivision" in row["reason"] for row in rows_of(tmp_path / "out")
    ] == [True] * 2


def test_a_pattern_too_large_to_check_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sddmm, "MOST_WORK", 10)
    said: list[str] = []
    run.run(RunSettings(suite(op="sddmm", limit=1, n=(5,)), tmp_path / "out"), say=said.append)
    assert rows_of(tmp_path / "out") == []
    assert "above" in said[0]
    assert run.run(RunSettings(suite(op="sddmm", limit=1, n=(5,)), tmp_path / "out")).left_out == 1


def test_rows_written_before_fields_were_added_are_read(tmp_path: Path) -> None:
    run.run(RunSettings(suite(limit=1, n=(4,)), tmp_path / "out"))
    old = [
        {name: value for name, value in row.items() if name not in schema.ADDED} for row in rows_of(tmp_path / "out")
    ]
    path = tmp_path / "old.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in old))
    assert schema.read_rows(path) == old
    with pytest.raises(InvalidArgument, match="kernel"):
        schema.check_row({name: value for name, value in old[0].items() if name != "kernel"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "nothing"}, "dataset 'nothing'"),
        ({"entries": ("x*",)}, "fit nothing"),
        ({"kernels": ("magic",)}, "magic"),
        ({"peers": ("magic",)}, "magic"),
        ({"dataset": "missing"}, "nothing of mine is here"),
        ({"op": "sddmm", "peers": ("magic",)}, "magic"),
        ({"op": "sddmm", "kernels": ("magic",)}, "magic"),
    ],
)
def test_what_a_suite_cannot_have_is_refused_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument, match=message):
        run.run(RunSettings(suite(**changes), tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    run.run(RunSettings(suite(limit=1, n=(4,)), tmp_path / "out"))
    with pytest.raises(InvalidArgument, match="another suite"):
        run.run(RunSettings(suite(limit=1, n=(5,)), tmp_path / "out"))
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    with pytest.raises(InvalidArgument, match="something else"):
        run.run(RunSettings(suite(), tmp_path / "photos"))
    assert sorted(path.name for path in (tmp_path / "photos").iterdir()) == ["cat.png"]


def test_built_in_suites_name_data_sets_that_there_are() -> None:
    found = suites.built_in()
    assert [one.name for one in found] == ["dlmc", "smoke", "survey-cpu", "survey-gpu"]
    assert all(own.dataset in datasets.registry for one in found for own in one.sets)
    assert suites.load("dlmc") in found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("set = 1", r"no \[\[set\]\]"),
        ("[[set]]", "dataset is missing"),
        ("[[set]\n", "no TOML"),
        ('colour = 1\n[[set]]\ndataset = "dlmc"', "colour"),
        ('[[set]]\ndataset = "dlmc"\nwidth = 1', "width is not known"),
        ('[[set]]\ndataset = "dlmc"\nn = ["a"]', "n is .*list of int"),
        ('[[set]]\ndataset = "dlmc"\nn = [0]', "positive"),
        ('[[set]]\ndataset = "dlmc"\nop = "gemm"', "op is 'gemm'"),
        ('[[set]]\ndataset = "dlmc"\nrounds = 0', "rounds is 0"),
        ('[[set]]\ndataset = "dlmc"\noracle = 1', "oracle is 1"),
    ],
)
def test_a_file_that_is_no_suite_says_where(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InvalidArgument, match=message):
        suites.load(str(path))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "Mine"\n[[set]]\ndataset = "small"\nn = 4\nlimit = 2\npeers = ["numpy"]\nseconds = 0\nrounds = 1\n'
    )
    assert main(["bench", "run", str(path), "-o", str(tmp_path / "out"), "--budget", "10m", "--json"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out) == {"folder": str(tmp_path / "out"), "cells": 2, "measured": 2, "kept": 0}
    assert "2 of 2 cells" in told.err
    assert main(["bench", "run", "--list"]) == 0
    assert "survey-cpu" in capsys.readouterr().out
    assert main(["bench", "run", "nothing"]) == 1
    assert "survey-cpu" in capsys.readouterr().err
    assert main(["bench", "run"]) == 2
    assert main(["bench", "run", "smoke", "--budget", "soon"]) == 2


def test_an_empty_call_costs_less_than_a_microsecond() -> None:
    assert 0 < limits.overhead_s() < 1e-6


def test_compare_finds_what_moved(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.run(RunSettings(suite(limit=2, n=(4,)), tmp_path / "a"))
    rows = rows_of(tmp_path / "a")
    assert len({row["matrix"] for row in rows}) == 2
    base, other = ([row for row in rows if row["matrix"] == name] for name in sorted({row["matrix"] for row in rows}))
    slow = [row | ({"time_s": 3 * row["time_s"]} if row["role"] == "candidate" else {}) for row in other]
    found = compare.compare(rows, base + slow)
    ours = [row for row in rows if row["role"] == "candidate" and row["status"] == "ok"]
    assert {one["kernel"] for one in found["moved"]} == {
        row["kernel"] for row in ours if row["matrix"] == other[0]["matrix"]
    }
    assert all(one["second"] == pytest.approx(one["first"] / 3) for one in found["moved"])
    assert compare.compare(rows, rows)["median"] == compare.compare(rows, rows)["tenths"] == 0
    late = [row | ({"time_q10_s": 3 * row["time_q10_s"]} if row["role"] == "dense" else {}) for row in rows]
    assert compare.compare(rows, late)["tenths"] == pytest.approx(2)
    assert compare.compare(rows, base)["only_first"] == found["pairs"] - compare.compare(rows, base)["pairs"]
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "a" / run.ROWS)]) == 0
    assert "differ by 0.0 %" in capsys.readouterr().out
    (tmp_path / "none.jsonl").write_text("")
    assert main(["bench", "compare", str(tmp_path / "a"), str(tmp_path / "none.jsonl")]) == 2


def test_what_does_not_fit_memory_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = run.needs_too_much((24, 32), (2,))
    monkeypatch.setattr(run, "total_bytes", lambda: 2 * 2 * (8 * 56 + 24 * 24) + 1)
    said: list[str] = []
    run.run(RunSettings(suite(limit=1), tmp_path / "out"), say=said.append)
    assert {row["n"] for row in rows_of(tmp_path / "out")} == {2}
    assert (small, len(said), "N = 3" in said[0]) == (None, 1, True)


def test_sets_with_a_matrix_in_common_are_refused(tmp_path: Path) -> None:
    own = suite().sets[0]
    twice = Suite("mine", "", "", (own, replace(own, dtype="bfloat16")))
    with pytest.raises(InvalidArgument, match="in 2 sets"):
        run.run(RunSettings(twice, tmp_path / "out"))
    run.run(RunSettings(replace(twice, sets=(own, replace(own, op="sddmm", limit=1))), tmp_path / "out"))
    assert {row["op"] for row in rows_of(tmp_path / "out")} == {"spmm", "sddmm"}
    lines = summarise(rows_of(tmp_path / "out"))["ratios"]
    assert {line["op"] for line in lines} == {"spmm", "sddmm"}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system binds no threads")
def test_every_thread_is_bound() -> None:
    script = (
        "import os, threading, time\n"
        "threading.Thread(target=time.sleep, args=(30,), daemon=True).start()\n"
        "from zeroskip.bench.run import bind\n"
        "bind(1)\n"
        "print({len(os.sched_getaffinity(int(name))) for name in os.listdir('/proc/self/task')})\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "{1}"


def test_a_device_has_its_own_rivals_clock_and_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        OnAnotherDevice(f"spmm_{layout}_f32_elsewhere", layout, "float32", "elsewhere", "elsewhere")
        for layout in ("dense", "csr")
    ]
    for kernel in found:
        monkeypatch.setitem(kernels.registry._items, kernel.name, kernel)
    monkeypatch.setattr(limits, "device_fields", lambda: {"peak_gflops": 5.0, "llc": 7})
    run.run(RunSettings(suite(limit=1, n=(4,), device="cuda", peers=("all",)), tmp_path / "out"))
    rows = [row for row in rows_of(tmp_path / "out") if row["status"] == "ok"]
    assert {row["kernel"] for row in rows} == {kernel.name for kernel in found}
    for row in rows:
        assert (row["device"], row["time_s"], row["peak_gflops"], row["llc"]) == ("cuda", 0.25, 5.0, 7)
        assert row["choice"] is None, "`plan` chooses for the processor"
    run.run(RunSettings(suite(limit=1, n=(4,), peers=("all",)), tmp_path / "here"))
    assert {row["device"] for row in rows_of(tmp_path / "here")} == {"cpu"}


def test_ratios_stay_on_one_device() -> None:
    def row(device: str, role: str, time_s: float) -> dict[str, Any]:
        own = {"status": "ok", "device": device, "role": role, "time_s": time_s, "origin": "x", "prepare_s": 1.0}
        return own | {"kernel": f"{device} {role}", "layout": "columns"}

    there = [row("cuda", "dense", 1.0), row("cuda", "peer", 2.0)]
    here = [row("cpu", "dense", 8.0), row("cpu", "candidate", 4.0)]
    compare_rows([*there, *here])
    assert [one["speedup"] for one in (*there, *here)] == [1.0, 0.5, 1.0, 2.0]


def test_a_worker_that_dies_leaves_its_matrix_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Died(Exception):
        """What Ray's exceptions are here."""

    def get(task: tuple[Any, ...]) -> Any:
        if task[2] == "random/1":
            raise Died("The worker died unexpectedly.\n\tout of memory\n")
        return cluster.measure(*task)

    ray = types.ModuleType("ray")
    parts = {
        "is_initialized": lambda: True,
        "nodes": lambda: [{"Resources": {"CPU": 2.0}, "Alive": True}],
        "cluster_resources": lambda: {"CPU": 2.0},
        "remote": lambda **_: lambda _: types.SimpleNamespace(remote=lambda *task: task),
        "wait": lambda tasks, num_returns: (tasks[:num_returns], tasks[num_returns:]),
        "get": get,
        "exceptions": types.SimpleNamespace(RayError=Died),
    }
    for name, part in parts.items():
        setattr(ray, name, part)
    monkeypatch.setitem(sys.modules, "ray", ray)
    said: list[str] = []
    outcome = run.run(RunSettings(suite(n=(2, 3)), tmp_path / "out", threads=1, ray=True), say=said.append)
    assert (outcome.total, outcome.done, outcome.left_out) == (12, 10, 2)
    assert said == ["left out: random/1: out of memory"]
    assert {row["matrix"] for row in rows_of(tmp_path / "out")} == {f"{m}/{i}" for m in METHODS for i in range(3)} - {
        "random/1"
    }
