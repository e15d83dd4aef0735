"""`zeroskip bench model` as a whole, on a tiny model: ours, dense, smaller and sparse, and torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("matplotlib")

sys.path.insert(0, str(Path(__file__).parent))
import runtime_models as small

import zeroskip
from zeroskip.bench.model import runner
from zeroskip.cli.main import main

SIZES = ["--window", "16", "--windows", "2", "--prompt", "12", "--context", "8", "--steps", "3", "--batch", "1,3"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense folder, a compiled one, and text."""
    home = tmp_path_factory.mktemp("model")
    dense = small.llama(num_hidden_layers=4, max_position_embeddings=128)
    dense.save_pretrained(home / "dense")
    small.word_tokenizer(special=False).save_pretrained(home / "dense")
    zeroskip.compile(zeroskip.models.load(home / "dense"), values="float32", **small.OPTIONS).save(home / "given")
    lines = [f"the {a} {noun} sat on a {b} tree" for noun in small.NOUNS for a, b in (("big", "red"), ("small", "two"))]
    (home / "text.txt").write_text("\n".join(3 * lines))
    return home


def run(home: Path, out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    text = str(home / "text.txt")
    command = ["bench", "model", str(home / "dense"), "--text", text, "--calibration", text, "--method", "magnitude"]
    command += [*SIZES, "--engines", "zeroskip,torch", "--values", "float32,int8", "--depth", "3", "--threads", "1"]
    command += ["--sparsity", "0.9"]  # the model has zeros of its own
    code = main([*command, "-o", str(out), "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def test_every_way_is_measured_and_a_run_goes_on(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    words = ["--compiled", str(home / "given"), "--rounds", "1"]
    code, doc = run(home, out, capsys, *words)
    rows = {row["row"]: row for row in doc["rows"]}
    assert {name: row["reason"] for name, row in rows.items() if row["status"] != "ok"} == {}
    assert code == 0
    assert set(rows) == {
        "torch:float32",
        "torch:bfloat16",
        *(f"zeroskip:{values}{what}" for values in ("float32", "int8") for what in ("", ":3-blocks", ":sparse-0.9")),
        "zeroskip:given",
    }
    dense, shallow, sparse = (rows[f"zeroskip:float32{what}"] for what in ("", ":3-blocks", ":sparse-0.9"))
    assert dense["kl"] < 1e-6 < min(shallow["kl"], sparse["kl"])
    assert (shallow["layers"], dense["layers"]) == (3, 4)
    assert sparse["sparsity"] > dense["sparsity"]
    assert set(dense["decode_tokens_per_s"]) == {"1", "3"}
    assert shallow["disk_bytes"] < dense["disk_bytes"]
    assert (out / "report.html").read_text().count("<svg") == 4
    assert len((out / "rows.jsonl").read_text().splitlines()) == len(rows)
    turns = (out / "turns.jsonl").read_text()

    monkeypatch.setattr(runner, "take_turn", None)  # nothing is left to be measured
    code, again = run(home, out, capsys, *words)
    assert code == 0
    assert again["rows"][0]["first_token_s"] == doc["rows"][0]["first_token_s"]
    assert (out / "turns.jsonl").read_text() == turns
    assert main(["bench", "model", str(home / "dense"), *SIZES, "--text", str(home / "text.txt"), "-o", str(out)]) == 1
    assert "holds a comparison" in capsys.readouterr().err


def test_a_wrong_engine_is_a_failed_row(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(home, tmp_path, capsys, "--rounds", "1")
    (tmp_path / "turns.jsonl").unlink()
    other = zeroskip.models.load(home / "dense")
    other.model.model.layers[1].mlp.down_proj.weight.data.mul_(300)
    folder = tmp_path / "files" / "zeroskip-float32"
    zeroskip.compile(other, values="float32", **small.OPTIONS).save(folder, overwrite=True)
    code, doc = run(home, tmp_path, capsys, "--rounds", "1")
    row = next(row for row in doc["rows"] if row["row"] == "zeroskip:float32")
    assert code == 1
    assert row["reason"].startswith("wrong result: mean divergence from torch")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--sparsity", "1.5"], "1.5"),
        (["--engines", "tensorrt"], "tensorrt"),
        (["--prompt", "4000"], "takes 128 tokens"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    text, out = str(home / "text.txt"), tmp_path / "out"
    assert main(["bench", "model", str(home / "dense"), "--text", text, "-o", str(out), *words]) != 0
    assert named in capsys.readouterr().err
    assert not out.exists()


def test_an_encoder_is_referred_to_its_own_benchmark(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small.bert().save_pretrained(tmp_path / "bert")
    small.word_tokenizer().save_pretrained(tmp_path / "bert")
    assert main(["bench", "model", str(tmp_path / "bert")]) == 1
    assert "bench embed" in capsys.readouterr().err
