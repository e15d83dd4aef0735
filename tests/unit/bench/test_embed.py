"""`zeroskip bench embed` in parts: workers that fail, padding, the choice of a variant, rows, ratios, the page."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zeroskip import ZeroskipError
from zeroskip.bench.embed import runner, texts, trial
from zeroskip.bench.embed.entries import Entry, Variant
from zeroskip.bench.embed.rows import make_rows
from zeroskip.bench.embed.schema import FIELDS, check_row
from zeroskip.bench.embed.settings import EmbedSettings
from zeroskip.bench.embed.tables import terminal
from zeroskip.bench.embed.trial import command
from zeroskip.bench.embed.worker.padding import by_length, padded, pool, unit
from zeroskip.bench.process import Worker, WorkerFailed
from zeroskip.bench.resume import check_folder, read_turns

HEADER = {
    "dense": "tiny",
    "machine": {"cpu": "X", "cores": 2, "isa": "avx2", "memory_bytes": 2**30, "system": "Linux"},
    "versions": {"zeroskip": "0"},
    "commit": None,
    "when": "2026-11-22T00:00:00+00:00",
}
ECHO = "import sys\nfor line in sys.stdin:\n    "


def worker(code: str, limit_s: float = 20.0) -> Worker:
    return Worker([sys.executable, "-c", code], threads=1, limit_s=limit_s)


# ---- workers ----


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (ECHO + "raise SystemExit('out of luck')", r"load: the process ended with code 1 \(out of luck\)"),
        (ECHO + "print('no json', flush=True)", "load: the answer is no JSON: no json"),
        (ECHO + 'print(\'{"error": "KeyError: x"}\', flush=True)', "load: KeyError: x"),
    ],
)
def test_a_worker_that_fails_says_why(code: str, reason: str) -> None:
    found = worker(code)
    with pytest.raises(WorkerFailed, match=reason):
        found.ask("load")
    found.close()
    assert not found.alive


def test_a_worker_that_hangs_is_ended() -> None:
    found = worker(ECHO + "import time; time.sleep(60)", limit_s=0.5)
    with pytest.raises(WorkerFailed, match=r"run: no answer in 0.5 s"):
        found.ask("run")
    found.close()
    assert not found.alive


def test_an_interpreter_that_is_not_there_is_a_reason() -> None:
    with pytest.raises(WorkerFailed, match="cannot be started: /nowhere/python: No such file"):
        Worker(["/nowhere/python"], threads=1, limit_s=1)


def test_the_worker_runs_without_zeroskip_and_lives_on_after_an_error(tmp_path: Path) -> None:
    """As it does in the environment of another library: its own folder is all it needs."""
    lonely = Worker([sys.executable, "-S", "-E", "-c", _loader()], threads=1, limit_s=20)
    try:
        with pytest.raises(WorkerFailed, match="RuntimeError: nothing is loaded"):
            lonely.ask("ready", batch=1)
        (tmp_path / "lines.json").write_text('["a", "b"]')
        assert lonely.ask("texts", file=str(tmp_path / "lines.json")) == {"lines": 2}
    finally:
        lonely.close()


def _loader() -> str:
    """Run the worker with the packages of this environment, but with `zeroskip` barred."""
    start = command()[1]
    return (
        f"import sys, runpy; sys.path += {[entry for entry in sys.path if entry]!r}; sys.modules['zeroskip'] = None; "
        f"runpy.run_path({start!r}, run_name='__main__')"
    )


# ---- padding ----


def test_batches_are_padded_to_their_longest_or_to_a_fixed_shape() -> None:
    ids, mask = padded([[5, 6, 7], [8]], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    ids, mask = padded([[5]], 9, length=2, count=2)
    assert ids.tolist() == [[5, 9], [9, 9]]
    assert mask.tolist() == [[1, 0], [1, 0]]
    assert by_length([[1], [1, 2, 3], [1, 2]], 2) == [[1, 2], [0]]


@pytest.mark.parametrize(("how", "want"), [("mean", [2.0, 3.0]), ("cls", [1.0, 5.0]), ("max", [3.0, 5.0])])
def test_pooling_leaves_padding_out(how: str, want: list[float]) -> None:
    hidden = np.array([[[1.0, 5.0], [3.0, 1.0], [99.0, 99.0]]], dtype=np.float32)
    mask = np.array([[1, 1, 0]], dtype=np.int64)
    assert pool(hidden, mask, how).tolist() == [want]
    assert unit(np.array([[3.0, 4.0], [0.0, 0.0]], dtype=np.float32)) == pytest.approx(np.array([[0.6, 0.8], [0, 0]]))


# ---- texts and settings ----


def test_a_sentence_has_exactly_so_many_tokens() -> None:
    lines = ["longwords only", "a b c d e f"]
    assert texts.sentence(lines, 5, lambda text: 2 + sum(max(1, len(word) // 2) for word in text.split())) == "a b c"
    with pytest.raises(ZeroskipError, match="no line begins with words of 50 tokens"):
        texts.sentence(lines, 50, lambda text: len(text.split()))


def test_calibration_never_sees_what_is_measured(tmp_path: Path) -> None:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(f"line {number}" for number in range(40)))
    measured = texts.measured_lines(str(path), 20)
    assert len(measured) == 20
    assert not set(measured) & set(texts.calibration_lines(str(path), measured, 16))


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"models": ()}, "models is empty"),
        ({"engines": ("tensorrt",)}, "engines has 'tensorrt'; choose among zeroskip, torch"),
        ({"models": (Path("a/m"), Path("b/m"))}, "two models are called 'm'"),
        ({"lines": 2}, "lines is 2"),
        ({"tokens": 2}, "tokens is 2"),
        ({"batches": (), "mixed": False}, "batch is empty"),
    ],
)
def test_bad_settings_are_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ZeroskipError, match=re.escape(reason)):
        EmbedSettings(**{"models": (Path("m"),), **given})


def test_a_folder_holds_one_comparison(tmp_path: Path) -> None:
    settings = EmbedSettings(models=(Path("m"),))
    (tmp_path / "settings.json").write_text(json.dumps(settings.lasting()))
    check_folder(replace(settings, rounds=9, budget_s=1.0).lasting(), tmp_path, "bench embed")
    with pytest.raises(ZeroskipError, match="holds a comparison with lines = 1000, not 7"):
        check_folder(replace(settings, lines=7).lasting(), tmp_path, "bench embed")
    (tmp_path / "settings.json").rename(tmp_path / "mine.json")
    with pytest.raises(ZeroskipError, match="is not empty and holds no comparison"):
        check_folder(settings.lasting(), tmp_path, "bench embed")


# ---- the choice of a variant ----


def test_the_fastest_of_equal_quality_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [
        {"cosine": 0.99, "single_s": 3.0, "batch_s": 2.0},
        {"cosine": 0.988, "single_s": 1.0, "batch_s": 5.0},
        {"cosine": 0.90, "single_s": 0.1, "batch_s": 0.1},  # fast, and worse
        {"cosine": 0.99, "cosine_min": 0.9, "single_s": 0.1, "batch_s": 0.1},  # fast, and wrong for one line
    ]

    def tried(entry: Entry, item: Variant, given: trial.Trial) -> dict[str, float]:
        if item.how == "4":
            raise WorkerFailed("load: it broke")
        return {"cosine_min": 1.0, **found[int(item.how)]}

    monkeypatch.setattr(trial, "_try", tried)
    monkeypatch.setattr(trial, "_judged", lambda entry, given: entry)
    given = trial.Trial(tmp_path, 9, 9, (32,), 1, 1.0)
    entry = Entry("e", "E", "torch", "torch", variants=tuple(Variant(str(place), {}, ()) for place in range(5)))
    chosen = trial.choose(entry, given)
    assert (chosen.single, chosen.batch) == (1, 0)
    broken = trial.choose(replace(entry, variants=(Variant("4", {}, ()), Variant("4", {}, ()))), given)
    assert (broken.status, broken.reason) == ("failed", "load: it broke")


# ---- turns ----


def settings_of(**given: Any) -> EmbedSettings:
    return EmbedSettings(**{"models": (Path("m"),), "batches": (), "rounds": 2, "lines": 3, **given})


class StandIn:
    """A worker that answers at once; the engine's name says what goes wrong with it."""

    started: list[str] = []  # noqa: RUF012 - reset by each test

    def __init__(self, name: str) -> None:
        self.name, self.alive, self.started_at = name, True, 0.0
        StandIn.started.append(name)

    def ask(self, order: str, **fields: Any) -> dict[str, Any]:
        if order == "run" and self.name == "dies":
            self.alive = False
            raise WorkerFailed("run: the process ended with code -9")
        return {"seconds": 2.0, "lines": 4, "times_s": [1.0], "version": "1"}

    def cpu_s(self) -> float:
        return 0.0

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    def check(worker: StandIn, entry: Entry, folder: Path) -> None:
        if entry.key == "wrong":
            raise WorkerFailed("wrong result: the smallest cosine in a batch is 0.1, at least 0.9999")

    StandIn.started.clear()
    monkeypatch.setattr(runner, "start", lambda entry, chosen, **_: StandIn(entry.key))
    monkeypatch.setattr(runner, "check", check)
    monkeypatch.setattr(runner, "_start", lambda *_, **__: {"start_s": 0.5, "resident_bytes": 7, "peak_bytes": 8})


def entries_of(*keys: str) -> list[Entry]:
    return [Entry(key, key, "torch", "torch", variants=(Variant("as it is", {}, ()),)) for key in keys]


@pytest.mark.usefixtures("stand_ins")
def test_failures_are_rows_and_the_others_go_on(tmp_path: Path) -> None:
    entries, settings = entries_of("good", "dies", "wrong"), settings_of()
    turns = runner.run_turns(entries, settings, tmp_path, tmp_path / "turns.jsonl", lambda *_: None)
    rows = {(row["row"], row["case"]): row for row in make_rows(entries, turns, settings, HEADER, 3)}
    assert rows["good", "mixed"]["status"] == "ok"
    assert rows["good", "mixed"]["sentences_per_s"] == 2.0
    assert rows["good", "mixed"]["rounds"] == 2
    assert rows["dies", "mixed"]["status"] == "failed"
    assert rows["dies", "mixed"]["reason"] == "run: the process ended with code -9"
    assert rows["dies", "start"]["status"] == "ok"
    assert {rows["wrong", case]["status"] for case in settings.cases} == {"failed"}  # its start as well
    assert "dies: failed: run: the process ended" in terminal(list(rows.values()))
    assert sum(turn["row"] == "dies" and turn["case"] == "mixed" for turn in turns) == 1  # not tried again


@pytest.mark.usefixtures("stand_ins")
def test_a_run_that_goes_on_repeats_nothing(tmp_path: Path) -> None:
    entries, path = entries_of("good", "other"), tmp_path / "turns.jsonl"
    runner.run_turns(entries, settings_of(rounds=1), tmp_path, path, lambda *_: None)
    first = path.read_text()
    path.write_text(first + '{"schema": "zeroskip.bench.em')  # cut off while it was written
    StandIn.started.clear()
    assert len(runner.run_turns(entries, settings_of(rounds=1), tmp_path, path, lambda *_: None)) == 6
    assert StandIn.started == []
    assert path.read_text() == first
    runner.run_turns(entries, settings_of(rounds=2), tmp_path, path, lambda *_: None)
    assert path.read_text().startswith(first)
    places = [(turn["row"], turn["case"], turn["round"]) for turn in map(json.loads, path.read_text().splitlines())]
    assert len(places) == len(set(places)) == 12
    path.write_text("{}\n" + first)
    with pytest.raises(ZeroskipError, match="line 1 of"):
        read_turns(path, runner.SCHEMA, runner.VERSION)


@pytest.mark.usefixtures("stand_ins")
def test_the_budget_ends_it_between_rounds(tmp_path: Path) -> None:
    settings = settings_of(rounds=50, budget_s=1e-9)
    turns = runner.run_turns(entries_of("good"), settings, tmp_path, tmp_path / "t", lambda *_: None)
    assert {turn["round"] for turn in turns} == {0}


# ---- rows and the page ----


def turn(row: str, case: str, number: int, threads: int = 1, **found: Any) -> dict[str, Any]:
    return {"row": row, "threads": threads, "case": case, "round": number, "reason": None, "lines": 10, **found}


def document() -> dict[str, Any]:
    quality = {"cosine_mean": 0.98, "cosine_p10": 0.9, "cosine_min": 0.8}
    quality |= {"neighbours_kept": 0.9, "rank_correlation": 0.99}
    ours, base = entries_of("zeroskip:m", "onnxruntime")
    ours = replace(ours, engine="zeroskip", model="m", label="zeroskip, <m>", sparsity=0.6, quality=quality)
    base = replace(base, engine="onnxruntime", quality=quality)
    absent = Entry("openvino", "OpenVINO", "openvino", "openvino").without("missing", "not installed")
    turns = []
    for number, (slow, fast) in enumerate([(4.0, 2.0), (40.0, 10.0), (3.0, 1.0)]):
        for threads in (1, 2):
            for case in ("single", "batch1", "mixed"):
                turns.append(turn("onnxruntime", case, number, threads, seconds=slow, p50_s=0.2, p95_s=0.3))
                turns.append(turn("zeroskip:m", case, number, threads, seconds=fast / threads, p50_s=0.1, p95_s=0.2))
            turns += [turn(key, "start", number, threads, start_s=1.0) for key in ("onnxruntime", "zeroskip:m")]
    settings = settings_of(batches=(1,), threads=(1, 2), rounds=3)
    rows = make_rows([ours, base, absent], turns, settings, HEADER, 10)
    return {"command": "zeroskip bench embed m", "lines": 10, "tokens": 20, **HEADER, "rows": rows}


def test_ratios_are_taken_inside_each_round() -> None:
    rows = {(row["row"], row["threads"], row["case"]): row for row in document()["rows"]}
    ours = rows["zeroskip:m", 1, "mixed"]
    assert ours["ratio"] == 3.0  # of 2, 4 and 3: the medians' own ratio would be 2
    assert ours["seconds"] == 2.0
    assert (ours["sentences_per_s"], ours["sentences_per_s_low"], ours["sentences_per_s_high"]) == (5.0, 1.0, 10.0)
    assert rows["zeroskip:m", 2, "mixed"]["speedup"] == 2.0
    assert rows["onnxruntime", 2, "mixed"]["ratio"] == 1.0
    assert rows["openvino", 1, "mixed"]["status"] == "missing"
    assert all(set(row) == set(FIELDS) for row in rows.values())


def test_a_row_that_breaks_the_schema_is_refused() -> None:
    row = document()["rows"][0]
    for change in ({"ratio": float("nan")}, {"status": "fine"}, {"reason": "why"}, {"schema_version": 2}, {"more": 1}):
        with pytest.raises(ZeroskipError, match="bench row"):
            check_row({**row, **change})


def test_the_document_lists_every_field() -> None:
    page = Path(__file__).parents[3] / "docs" / "bench-embed.md"
    if not page.is_file():
        pytest.skip("runs from a checkout only")
    listed = re.findall(r"^\| `(\w+)` \| [a-z ]+ \| (.+) \|$", page.read_text(), flags=re.M)
    assert [(name, words) for name, words in listed if name in FIELDS] == [
        (name, words) for name, (_, _, words) in FIELDS.items()
    ]


def test_the_page_is_one_file_that_loads_nothing() -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    from zeroskip.bench.embed.page import render

    html = render(document())
    assert not re.search(r"url\((?!#)|@import|https?://|<script|<link", html, flags=re.I)
    assert "zeroskip, &lt;m&gt;" in html
    assert "<m>" not in html
    assert "OpenVINO: missing" in html
    assert "3.00x" in html
    assert html.count("<svg") == 4


def test_the_tables_show_scaling_and_latency() -> None:
    text = terminal(document()["rows"])
    assert "over fewest threads" in text
    assert "p95" in text
    assert "OpenVINO: missing: not installed" in text
    assert "cosine" in text
