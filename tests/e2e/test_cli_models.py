"""The commands on small random models: prune, compile, embed, run, eval, inspect, and the whole demo."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

from zeroskip.cli import main  # noqa: E402

WORDS = 300


@pytest.fixture(scope="module")
def text() -> str:
    """Enough of the default text to train a vocabulary on."""
    from zeroskip.datasets import calibration_source

    return calibration_source("pydoc")[0][:60_000]


def save_tokenizer(folder: Path, text: str, *, bert: bool) -> None:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    trainer = tokenizers.trainers.WordLevelTrainer(vocab_size=WORDS, special_tokens=special)
    tokenizer.train_from_iterator(text.splitlines(), trainer)
    if bert:
        tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-bert"
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    transformers.BertModel(config).save_pretrained(folder)
    save_tokenizer(folder, text, bert=True)
    return folder


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory, text: str) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=64,
        max_position_embeddings=160,
        eos_token_id=None,
        bos_token_id=None,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder, text, bert=False)
    return folder


@pytest.fixture(scope="module")
def compiled_bert(bert: Path) -> Path:
    pruned, compiled = bert.parent / "bert-pruned", bert.parent / "bert-compiled"
    assert main(["prune", str(bert), "--sparsity", "0.6", "--samples", "16", "--refit", "none", "-o", str(pruned)]) == 0
    assert main(["compile", str(pruned), "-o", str(compiled), "--budget", "0.2"]) == 0
    return compiled


@pytest.fixture(scope="module")
def compiled_llama(llama: Path) -> Path:
    pruned, compiled = llama.parent / "llama-pruned", llama.parent / "llama-compiled"
    words = ["--method", "magnitude", "--pattern", "2:4"]
    assert main(["prune", str(llama), *words, "-o", str(pruned)]) == 0
    assert main(["compile", str(pruned), "-o", str(compiled), "--budget", "0.2", "--values", "float32"]) == 0
    return compiled


def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """The JSON on standard output, alone there."""
    return json.loads(capsys.readouterr().out)


def test_prune_says_what_it_did(bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    words = ["--method", "wanda", "--sparsity", "0.5", "--samples", "8", "--seed", "3", "--exclude", "*.query"]
    assert main(["prune", str(bert), *words, "--refit", "none", "-o", str(out), "--json"]) == 0
    report = shown(capsys)
    assert (report["method"], report["seed"], report["out"]) == ("wanda", 3, str(out))
    assert report["achieved"] == pytest.approx(0.5, abs=0.01)
    assert not any(layer["name"].endswith("query") for layer in report["layers"])
    weights = transformers.AutoModel.from_pretrained(out).state_dict()
    assert float((weights["encoder.layer.0.output.dense.weight"] == 0).float().mean()) == pytest.approx(0.5, abs=0.01)
    assert not bool((weights["encoder.layer.0.attention.self.query.weight"] == 0).any())
    assert main(["inspect", str(out), "--json"]) == 0
    assert shown(capsys)["layers"] == report["layers"]
    assert main(["inspect", str(out)]) == 0
    assert "encoder.layer.0.output.dense" in capsys.readouterr().out


def test_prune_refuses_a_folder_of_somebody_else(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    assert main(["prune", str(bert), "-o", str(tmp_path)]) == 2
    assert "choose another folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "important"


def test_compile_shows_the_plan_and_does_not_overwrite(compiled_bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(compiled_bert), "--json"]) == 0
    before = shown(capsys)
    assert before["kind"] == "encoder"
    assert len(before["plan"]) == 12
    pruned = compiled_bert.parent / "bert-pruned"
    assert main(["compile", str(pruned), "-o", str(compiled_bert)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    words = ["--overwrite", "--budget", "0.1", "--batch-sizes", "1,8", "--optimize", "memory"]
    assert main(["compile", str(pruned), "-o", str(compiled_bert), *words, "--json"]) == 0
    made = shown(capsys)
    assert [choice["n"] for choice in made["plan"][0]["choices"]] == [1, 8]
    assert main(["inspect", str(compiled_bert)]) == 0
    assert "encoder.layer" in capsys.readouterr().out


def test_embed_gives_one_row_a_line(
    compiled_bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = ["the list type", "", "a class is an object", "the list type"]
    (tmp_path / "lines.txt").write_text("\n".join(lines) + "\n")
    out = tmp_path / "vectors.npy"
    assert main(["embed", str(compiled_bert), str(tmp_path / "lines.txt"), "-o", str(out), "--json"]) == 0
    assert shown(capsys)["lines"] == 4
    vectors = np.load(out)
    assert vectors.shape == (4, 32)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors[0], vectors[3], rtol=1e-6)
    assert np.abs(vectors[0] - vectors[2]).max() > 1e-3
    with open(tmp_path / "lines.txt") as file:
        monkeypatch.setattr(sys, "stdin", file)
        assert main(["embed", str(compiled_bert), "-", "-o", str(tmp_path / "again.npy")]) == 0
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy"), vectors)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.npy", "lines.txt", "vectors.npy"]


def test_embed_leaves_the_old_file_when_it_cannot_finish(
    compiled_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "lines.txt").write_text("a line\n")
    out = tmp_path / "vectors.npy"
    out.write_bytes(b"old")
    monkeypatch.setattr(np, "save", full)
    assert main(["embed", str(compiled_bert), str(tmp_path / "lines.txt"), "-o", str(out), "-q"]) == 1
    assert "No space left" in capsys.readouterr().err
    assert out.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lines.txt", "vectors.npy"]


def test_run_streams_the_text(compiled_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["run", str(compiled_llama), "the list is", "--max-tokens", "8"]
    assert main(words) == 0
    first = capsys.readouterr()
    assert first.out.startswith("the list is")
    assert "prompt tokens" in first.err
    assert main([*words, "--json"]) == 0
    made = shown(capsys)
    assert len(made["ids"]) == 8
    assert first.out == "the list is" + made["text"] + "\n"


def test_run_draws_by_seed(compiled_llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def ids(seed: int) -> list[int]:
        words = ["--max-tokens", "12", "--temperature", "1.5", "--seed", str(seed), "--json"]
        assert main(["run", str(compiled_llama), "the list is", *words]) == 0
        found: list[int] = shown(capsys)["ids"]
        return found

    assert ids(1) == ids(1)
    assert ids(1) != ids(2)


def test_run_and_embed_refuse_the_wrong_kind(
    compiled_bert: Path, compiled_llama: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.txt").write_text("a line\n")
    assert main(["run", str(compiled_bert), "Hello"]) == 1
    assert "encoder" in capsys.readouterr().err
    assert main(["embed", str(compiled_llama), str(tmp_path / "lines.txt"), "-o", str(tmp_path / "v.npy")]) == 1
    assert "decoder" in capsys.readouterr().err


def test_eval_of_a_decoder(compiled_llama: Path, llama: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["eval", str(compiled_llama), "--window", "32", "--windows", "3", "--json"]
    assert main(words) == 0
    alone = shown(capsys)
    assert alone["windows"] == 3
    assert 1 < alone["perplexity"] < 10 * WORDS
    assert main([*words, "--against", str(llama)]) == 0
    both = shown(capsys)
    assert both["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-5)
    assert both["kl"] > 0
    pruned = llama.parent / "llama-pruned"
    assert main([*words, "--against", str(pruned)]) == 0
    same = shown(capsys)
    assert same["perplexity"] == pytest.approx(same["perplexity_dense"], rel=1e-4)
    assert same["kl"] == pytest.approx(0, abs=1e-6)
    assert same["top1_agreement"] == pytest.approx(1, abs=0.02)


def test_eval_of_an_encoder(
    compiled_bert: Path, bert: Path, compiled_llama: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(compiled_bert)]) == 2
    assert "--against" in capsys.readouterr().err
    words = ["eval", str(compiled_bert), "--lines", "24", "--neighbours", "5", "--json"]
    assert main([*words, "--against", str(bert)]) == 0
    dense = shown(capsys)
    assert main([*words, "--against", str(bert.parent / "bert-pruned")]) == 0
    same = shown(capsys)
    assert same["cosine"] == pytest.approx(1, abs=1e-5)
    assert same["neighbours_kept"] == pytest.approx(1, abs=0.05)
    assert dense["cosine"] < same["cosine"]
    assert main(["eval", str(compiled_llama), "--against", str(bert)]) == 2
    assert "compare alike" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_demo_in_codes(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    """The check is against the rounded weights, and the page says what they are."""
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    out = tmp_path / "demo"
    words = ["demo", "--model", str(request.getfixturevalue(kind)), "--quick", "-o", str(out), "--json", "--no-open"]
    assert main([*words, "--threads", "1", "--values", "int8", "--pattern", "8:16"]) == 0
    result = shown(capsys)
    assert result["compile"]["values"] == "int8"
    assert {layer["values"] for layer in result["layers"]} == {"int8"}
    assert all("rounded to int8" in check["what"] and check["passed"] for check in result["checks"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "int8 values" in page
    assert "rounded to int8" in page


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_demo(kind: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("jinja2")
    pytest.importorskip("matplotlib")
    out = tmp_path / "demo"
    words = ["demo", "--model", str(request.getfixturevalue(kind)), "--quick", "-o", str(out), "--json", "--no-open"]
    words += ["--threads", "1"]
    assert main(words) == 0
    result = shown(capsys)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert result["page"] == str(out / "report.html")
    assert json.loads((out / "results.json").read_text())["quality"] == result["quality"]
    assert result["command"].startswith("zeroskip demo --model")
    assert all(check["passed"] for check in result["checks"])
    assert result["pruning"]["achieved"] == pytest.approx(0.6 if kind == "bert" else 0.5, abs=0.02)
    for speed in result["speeds"]:
        measured = {engine["key"] for engine in speed["engines"] if engine["status"] == "ok"}
        assert {"torch", "zeroskip_dense", "zeroskip_sparse"} <= measured
        assert all(engine["rate"] > 0 for engine in speed["engines"] if engine["status"] == "ok")
    if kind == "bert":
        assert 0.5 < result["quality"]["cosine"]["mean"] <= 1.000001
        assert 0 <= result["quality"]["neighbours"]["kept"] <= 1
    else:
        assert result["quality"]["perplexity"]["sparse"] > 1
        assert len(result["samples"]) == 3
    assert not re.search(r"https?://|<script|<link|<img", page)
    assert "A quick run" in page
    assert main(["inspect", str(out / "compiled")]) == 0
    assert main(["inspect", str(out / "pruned")]) == 0


def test_demo_measures_on_lines_it_was_not_calibrated_with() -> None:
    from zeroskip.bench.demo.texts import demo_texts

    texts = demo_texts(None, None, count=50)
    assert len(texts.evaluation) == 50
    assert not set(texts.calibration) & set(texts.evaluation)
    assert "no text was given" in texts.note


def test_demo_without_onnx_says_how_to_install_it(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from zeroskip import models
    from zeroskip.bench.demo import encoder

    monkeypatch.setitem(sys.modules, "onnx", None)
    found = encoder._onnx(models.load(str(bert)), tmp_path, threads=1, fuse=False)
    assert isinstance(found, dict)
    assert found["status"] == "missing"
    assert "pip install onnx onnxruntime" in found["reason"]


def test_demo_refuses_a_folder_of_somebody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "thesis.txt").write_text("important")
    assert main(["demo", "-o", str(tmp_path)]) == 2
    assert "choose another folder" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_interrupted_pruning_leaves_what_was_there(bert: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["prune", str(bert), "--method", "magnitude", "--sparsity", "0.5", "-o", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    command = [sys.executable, "-m", "zeroskip.cli", "prune", str(bert), "--samples", "100000", "-o", str(out)]
    # A shell's background job, and so its children, ignores SIGINT unless told otherwise.
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline() + process.stderr.readline()  # the model is loaded, pruning begins
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=60)[1]
    assert "tiny-bert" in said
    assert process.returncode == 130
    assert rest.strip().splitlines() == ["zeroskip prune: interrupted; what was there before is untouched."]
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_prune_with_distillation(bert: Path, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts, out = tmp_path / "texts.txt", tmp_path / "out"
    texts.write_text("\n".join(line for line in text.splitlines() if len(line) > 40)[:8000])
    words = ["prune", str(bert), "--sparsity", "0.6", "--distill", str(texts), "--distill-steps", "4", "-o", str(out)]
    words += ["--device", "cpu", "--distill-schedule", "gradual", "--json"]
    (tmp_path / "out.distill").write_bytes(b"an earlier one")
    assert main(words) == 2
    assert "--resume" in capsys.readouterr().err
    (tmp_path / "out.distill").unlink()
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    saved = json.loads((out / "zeroskip_prune.json").read_text())
    assert report["method"] == saved["method"] == "distill"
    assert saved["distilled"]["steps"] == 4
    assert saved["distilled"]["text"] == str(texts)
    assert 0 < saved["distilled"]["after"] <= 1
    assert saved["achieved"] == pytest.approx(0.6, abs=1e-3)
    assert not (tmp_path / "out.distill").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--distill-minutes", "5"], "give --distill FILE"),
        (["--distill", "x.txt", "--method", "wanda"], "--method is for pruning without training"),
        (["--distill", "x.txt", "--distill-minutes", "0"], "above 0"),
        (["--distill", "/nowhere.txt"], "/nowhere.txt"),
    ],
)
def test_prune_refuses_options_that_do_not_fit(
    bert: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["prune", str(bert), "-o", str(tmp_path / "out"), *words]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
