"""Distillation of a tiny encoder: the cosine rises, zeros stay, an interrupted run goes on, bad input is refused."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

import zeroskip  # noqa: E402
from zeroskip import DamagedFile, InvalidArgument, ShapeError, UnsupportedModel, models  # noqa: E402
from zeroskip.models.distillation.data import corpus_of  # noqa: E402

from .conftest import make  # noqa: E402

WORDS = [f"w{i}" for i in range(56)]
SETTINGS: dict[str, Any] = {"steps": 16, "tokens": 128, "rate": 1e-3, "device": "cpu", "seed": 3}


def tokenizer() -> Any:
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, "."])}
    plain = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    plain.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    plain.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=plain, **names)


def texts(count: int = 60) -> list[str]:
    generator = torch.Generator().manual_seed(1)
    lengths = torch.randint(6, 30, (count,), generator=generator).tolist()
    return [" ".join(WORDS[i] for i in torch.randint(0, 56, (n,), generator=generator).tolist()) for n in lengths]


def dense(name: str = "bert") -> models.LoadedModel:
    loaded = models.load(make(name), tokenizer=tokenizer())
    with torch.no_grad():
        for layer in models.prunable(loaded.model):
            layer.parameter.mul_(8)  # fresh weights are so small that pruning them changes next to nothing
    return loaded


def one_shot(sparsity: float = 0.7, pattern: str = "unstructured") -> models.LoadedModel:
    loaded = dense()
    models.prune(loaded, method="magnitude", sparsity=sparsity, pattern=pattern)
    return loaded


def weights(loaded: models.LoadedModel) -> dict[str, Any]:
    return {layer.name: layer.weight().clone() for layer in models.prunable(loaded.model)}


def test_cosine_rises_above_the_one_shot_start_and_zeros_stay() -> None:
    student, teacher = one_shot(), dense()
    before, embeddings = weights(student), copy.deepcopy(student.model.embeddings.word_embeddings.state_dict())
    report = zeroskip.distill(student, teacher=teacher, texts=texts(), **SETTINGS)
    done = report.distilled
    assert done.schedule == "fixed"
    assert done.steps == 16
    assert done.after > done.before + 0.01
    for name, weight in weights(student).items():
        assert torch.equal(weight == 0, before[name] == 0)
        assert not torch.equal(weight, before[name])
    assert report.achieved == pytest.approx(0.7, abs=1e-3)
    assert torch.equal(student.model.embeddings.word_embeddings.weight, embeddings["weight"])
    original = weights(dense())
    assert all(torch.equal(weight, original[name]) for name, weight in weights(teacher).items())


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block:4x1"])
def test_gradual_ends_at_the_target_in_the_pattern(pattern: str) -> None:
    student = dense()
    report = models.distill(student, texts=texts(), sparsity=0.5, pattern=pattern, schedule="gradual", **SETTINGS)
    assert report.distilled.before is None
    assert report.achieved == pytest.approx(0.5, abs=1e-6)
    for weight in weights(student).values():
        zero = weight == 0
        if pattern == "2:4":
            assert set((~zero).reshape(-1, 4).sum(1).tolist()) == {2}
        if pattern == "block:4x1":
            assert set(zero.reshape(-1, 4, zero.shape[1]).sum(1).unique().tolist()) == {0, 4}


def test_a_dense_model_on_a_cpu_starts_from_sparsegpt() -> None:
    student = dense()
    report = models.distill(student, texts=texts(), sparsity=0.6, **{**SETTINGS, "steps": 5})
    assert report.method == "distill"
    assert report.distilled.schedule == "fixed"
    assert "sparsegpt" in report.notes[0]
    assert report.achieved == pytest.approx(0.6, abs=1e-3)
    assert report.distilled.after >= report.distilled.before


@pytest.mark.parametrize("name", ["roberta", "mpnet", "distilbert", "bert_classifier"])
def test_every_encoder_trains(name: str) -> None:
    student = dense(name)
    report = models.distill(
        student, texts=texts(20), sparsity=0.5, schedule="gradual", **{**SETTINGS, "steps": 3, "held_back": 0.2}
    )
    assert report.achieved == pytest.approx(0.5, abs=1e-3)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in student.model.parameters())


@pytest.mark.parametrize("schedule", ["fixed", "gradual"])
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(schedule: str, tmp_path: Path) -> None:
    def begin() -> dict[str, Any]:
        student = one_shot() if schedule == "fixed" else dense()
        more = {"teacher": dense()} if schedule == "fixed" else {"sparsity": 0.7}
        return {"model": student, "texts": texts(), "schedule": schedule, **more, **SETTINGS}

    def stop(stage: str, done: int, total: int) -> None:
        if stage == "distill" and done >= 0.45 * total:
            raise KeyboardInterrupt

    whole, broken, again = begin(), begin(), begin()
    reference = models.distill(**whole)
    path = tmp_path / "run.ckpt"
    with pytest.raises(KeyboardInterrupt):
        models.distill(**broken, checkpoint=path, progress=stop)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]  # nothing half written beside it
    with pytest.raises(InvalidArgument, match="resume=True"):
        models.distill(**again, checkpoint=path)
    with pytest.raises(InvalidArgument, match=r"rate was 0\.001 and is 0\.01"):
        models.distill(**{**again, "rate": 0.01}, checkpoint=path, resume=True)
    report = models.distill(**again, checkpoint=path, resume=True)
    assert report.distilled.resumed
    assert report.distilled.steps == 16
    assert not path.exists()
    assert report.distilled.after >= reference.distilled.after - 1e-6
    for name, weight in weights(again["model"]).items():
        assert torch.equal(weight == 0, weights(whole["model"])[name] == 0)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(DamagedFile, match=r"run\.ckpt"):
        models.distill(one_shot(), teacher=dense(), texts=texts(), checkpoint=path, resume=True, **SETTINGS)


def test_bad_input_is_refused_before_anything_moves(tmp_path: Path) -> None:
    student = dense()
    before = weights(student)
    short = tmp_path / "empty.txt"
    short.write_text("\n")
    cases: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (InvalidArgument, r"texts: .*nowhere\.txt", {"texts": "nowhere.txt"}),
        (InvalidArgument, r"empty\.txt.* is empty", {"texts": short}),
        (InvalidArgument, "texts is empty", {"texts": []}),
        (InvalidArgument, "sparsity is 60", {"sparsity": 60}),
        (InvalidArgument, "minutes is -1", {"minutes": -1}),
        (InvalidArgument, "held_back is 0", {"held_back": 0}),
        (InvalidArgument, "schedule is 'slow'", {"schedule": "slow"}),
        (InvalidArgument, "device is 'abacus'", {"device": "abacus"}),
        (InvalidArgument, "no checkpoint", {"resume": True}),
        (InvalidArgument, "1 paragraphs of which 1", {"texts": ["one line alone"]}),
        (InvalidArgument, "teacher is the model itself", {"teacher": student}),
        (ShapeError, "distill encoder", {"pattern": "block:5x1"}),
    ]
    for kind, message, arguments in cases:
        with pytest.raises(kind, match=message):
            models.distill(student, **{"texts": texts(), **SETTINGS, "schedule": "gradual", **arguments})
    assert all(torch.equal(weight, before[name]) for name, weight in weights(student).items())


def test_what_cannot_be_distilled_says_what_can() -> None:
    with pytest.raises(UnsupportedModel, match=r"only encoders.*GradualPruner"):
        models.distill(dense("llama"), texts=texts())
    with pytest.raises(UnsupportedModel, match="no tokenizer"):
        models.distill(make("bert"), texts=texts())
    with pytest.raises(InvalidArgument, match=r"models\.load\('minilm'\)"):
        models.distill("minilm", texts=texts())
    with pytest.raises(InvalidArgument, match="no teacher"):
        models.distill(one_shot(), texts=texts(), **SETTINGS)
    with pytest.raises(InvalidArgument, match=r"0\.700 of the model is zero"):
        models.distill(one_shot(), teacher=dense(), sparsity=0.5, texts=texts(), **SETTINGS)


def test_the_report_is_saved_with_the_model(tmp_path: Path) -> None:
    student = one_shot()
    report = models.distill(student, teacher=dense(), texts=texts(), **{**SETTINGS, "steps": 4})
    models.save_pruned(student, tmp_path / "out", report)
    saved = (tmp_path / "out" / "zeroskip_prune.json").read_text()
    assert '"method": "distill"' in saved
    assert '"steps": 4' in saved
    assert "held-back paragraphs" in str(report)


def test_corpus_breaks_paragraphs_into_sentences() -> None:
    def encode(parts: Any) -> list[list[int]]:
        return [list(range(len(part.split()))) for part in parts]

    one = "A b c d e f. G h i j k l m! N o."
    corpus = corpus_of([one, "", one], encode, limit=100)
    assert corpus.sentences.tolist() == [0, 6, 15, 21, 30]  # "N o." is too short to stand alone
    assert corpus.paragraphs.tolist() == [0, 2, 4]
    assert corpus.weights.tolist() == [0.5, 0.5]
