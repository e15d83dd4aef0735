"""`zeroskip bench embed` as a whole, on a tiny model: ours, torch, ONNX Runtime, and a stand-in for DeepSparse."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

sys.path.insert(0, str(Path(__file__).parent))
import runtime_models as small

import zeroskip
from zeroskip.bench import process
from zeroskip.bench.embed import runner, trial
from zeroskip.cli import main

# DeepSparse takes one shape an engine and no other; this one runs ONNX Runtime and insists on it as well.
STAND_IN = """
import onnxruntime, sys

class Engine:
    def __init__(self, path, batch_size, num_cores, input_shapes):
        assert "zeroskip" not in sys.modules
        print("an engine that talks on standard output")
        self.shape = tuple(input_shapes[0])
        assert self.shape[0] == batch_size
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        open(path, "wb").close()  # the real one writes its shapes into the file

    def run(self, inputs, val_inp=True):
        assert all(array.shape == self.shape for array in inputs)
        return self.session.run(None, dict(zip(("input_ids", "attention_mask"), inputs)))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense folder, the same compiled, a pruned one compiled, and lines of text."""
    home = tmp_path_factory.mktemp("embed")
    dense, tokenizer = small.bert(), small.word_tokenizer()
    dense.save_pretrained(home / "dense")
    tokenizer.save_pretrained(home / "dense")
    zeroskip.compile(zeroskip.models.load(home / "dense"), **small.OPTIONS).save(home / "fast")
    lines = [
        f"the {a} {noun} sat on a {b} tree" for noun in small.NOUNS for a, b in (("big", "red"), ("small", "blue"))
    ]
    (home / "lines.txt").write_text("\n".join([*lines, "the cat"]))
    (home / "deepsparse.py").write_text(STAND_IN)
    return home


def run(home: Path, out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, dict[str, Any]]:
    command = ["bench", "embed", str(home / "fast"), "--dense", str(home / "dense"), "--text", str(home / "lines.txt")]
    command += ["--quick", "--rounds", "1", "--batch", "1,4,mixed", "--tokens", "5", "--threads", "1", "-o", str(out)]
    code = main([*command, "--json", *words])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.slow
def test_the_whole_comparison_and_that_it_goes_on(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    monkeypatch.setenv("PYTHONPATH", ":".join([str(models), *filter(None, sys.path)]))
    words = ["--engines", "zeroskip,torch,onnxruntime,openvino,deepsparse"]
    words += ["--deepsparse-python", sys.executable]
    monkeypatch.setitem(__import__("zeroskip.bench.embed.prepare", fromlist=["x"])._PACKAGES, "openvino", ("no_such",))
    code, doc = run(models, tmp_path / "out", capsys, *words)
    rows = {(row["row"], row["case"]): row for row in doc["rows"]}
    assert code == 0, [row["reason"] for row in doc["rows"]]
    assert {row["status"] for row in doc["rows"] if row["engine"] != "openvino"} == {"ok"}
    assert rows["openvino", "mixed"]["reason"] == "not installed: pip install no_such"
    assert rows["zeroskip:fast", "mixed"]["cosine_min"] > 0.99999  # the dense model here has the same zeros
    assert rows["zeroskip:fast", "mixed"]["sparsity"] == pytest.approx(0.7, abs=0.05)
    assert rows["torch", "batch4"]["cosine_min"] > 0.9999
    assert rows["onnxruntime", "batch4"]["ratio"] == 1.0
    assert rows["deepsparse:fast", "mixed"]["status"] == "ok"
    for row in doc["rows"]:
        if row["status"] == "ok":
            assert (row["start_s"] or 0) > 0 or row["sentences_per_s"] > 0
    assert rows["zeroskip:fast", "single"]["p50_s"] <= rows["zeroskip:fast", "single"]["p95_s"]
    assert rows["torch", "start"]["peak_bytes"] >= rows["torch", "start"]["resident_bytes"] > 50e6
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()

    def never(*_: Any, **__: Any) -> Any:
        raise AssertionError("a worker was started again")

    for module in (runner, trial, process):
        monkeypatch.setattr(module, "Worker", never)
    _, again = run(models, tmp_path / "out", capsys, *words)
    assert [row["seconds"] for row in again["rows"]] == [row["seconds"] for row in doc["rows"]]


def test_another_dense_model_is_a_failure_row(
    models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose vectors are not those of the model's own weights is never timed."""
    from zeroskip.bench import saved

    monkeypatch.setattr(saved, "with_saved_weights", lambda dense, folder: _shaken(dense))
    code, doc = run(models, tmp_path / "out", capsys, "--engines", "zeroskip")
    assert code == 1
    assert {row["status"] for row in doc["rows"]} == {"failed"}
    assert doc["rows"][1]["reason"].startswith("wrong result: the smallest cosine in a batch is ")


def _shaken(dense: Any) -> Any:
    """The model with other weights in its last layer."""
    import copy
    from dataclasses import replace

    import torch

    model = copy.deepcopy(dense.model)
    with torch.no_grad():
        model.encoder.layer[-1].output.dense.weight.normal_()
    return replace(dense, model=model)


def test_bad_use_writes_nothing(models: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    for words, reason in (
        (["--batch", "0"], "--batch has '0'"),
        (["--dense", "no-such-model"], "no-such-model"),
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--budget", "soon"], "'soon' is not a duration"),
    ):
        command = ["bench", "embed", str(models / "fast"), "--dense", str(models / "dense"), "-o", str(out)]
        assert main([*command, *words]) != 0
        assert reason in capsys.readouterr().err
        assert not out.exists()
