"""The quality measures against their definitions on small cases, and the texts that have names."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from zeroskip import datasets
from zeroskip._errors import InvalidArgument, MissingDependency, ShapeError
from zeroskip.bench import quality

RNG = np.random.default_rng(0)


def softmax(values: np.ndarray) -> np.ndarray:
    e = np.exp(values.astype(np.float64))
    return e / e.sum(1, keepdims=True)


def table(seed: int, vocabulary: int = 11) -> np.ndarray:
    """Logits of a language model that looks at the last token only."""
    return np.random.default_rng(seed).normal(size=(vocabulary, vocabulary)).astype(np.float32)


def test_windows_lie_end_to_end() -> None:
    parts = quality.windows(range(25), length=10, count=None)
    assert [list(part) for part in parts] == [list(range(10)), list(range(10, 20))]
    assert len(quality.windows(range(100), length=10, count=3)) == 3
    with pytest.raises(InvalidArgument, match="not one window"):
        quality.windows(range(9), length=10)


def test_perplexity_is_its_definition() -> None:
    logits, parts = table(1), quality.windows(RNG.integers(0, 11, 600), length=150, count=None)
    expected = np.mean(
        [-np.mean([math.log(softmax(logits[[a]])[0, b]) for a, b in itertools.pairwise(p)]) for p in parts]
    )
    assert quality.perplexity(lambda ids: logits[ids], parts) == pytest.approx(math.exp(expected), rel=1e-5)
    assert quality.perplexity(lambda ids: np.zeros((1, len(ids), 11)), parts) == pytest.approx(11)
    with pytest.raises(InvalidArgument, match="no window"):
        quality.perplexity(lambda ids: logits[ids], [])
    with pytest.raises(ShapeError, match="logits have shape"):
        quality.perplexity(lambda ids: logits[ids][:-1], parts)


def test_compare_logits_is_its_definition() -> None:
    first, second = table(1), table(2)
    parts = quality.windows(RNG.integers(0, 11, 300), length=100, count=None)
    found = quality.compare_logits(lambda ids: first[ids], lambda ids: second[ids], parts)
    rows = np.concatenate([part[:-1] for part in parts])
    p, q = softmax(first[rows]), softmax(second[rows])
    assert found.kl == pytest.approx(float((p * np.log(p / q)).sum(1).mean()), rel=1e-4)
    assert found.top1_agreement == pytest.approx(float((p.argmax(1) == q.argmax(1)).mean()))
    assert found.perplexity_dense == pytest.approx(quality.perplexity(lambda ids: first[ids], parts))
    assert found.perplexity_sparse == pytest.approx(quality.perplexity(lambda ids: second[ids], parts))
    assert (found.windows, found.predictions) == (3, 297)
    same = quality.compare_logits(lambda ids: first[ids], lambda ids: first[ids], parts)
    assert (same.kl, same.top1_agreement) == (pytest.approx(0, abs=1e-7), 1.0)


def test_embeddings_against_themselves_and_against_noise() -> None:
    vectors = RNG.normal(size=(60, 16))
    same = quality.compare_embeddings(vectors, vectors * 3, [""] * 60)
    assert (same.mean_cosine, same.neighbours_kept, same.rank_correlation) == (pytest.approx(1), 1.0, pytest.approx(1))
    noisy = quality.compare_embeddings(lambda _: vectors, lambda _: vectors + RNG.normal(size=(60, 16)), [""] * 60)
    assert 0.4 < noisy.mean_cosine < 0.95
    assert noisy.min_cosine < noisy.mean_cosine
    assert 0.1 < noisy.neighbours_kept < 0.95
    assert 0.1 < noisy.rank_correlation < 0.95


def test_neighbours_and_ranks_by_hand() -> None:
    dense = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    swapped = dense[[0, 2, 1, 3]]  # rows 1 and 2 change places
    assert quality.neighbours_kept(dense, dense, k=1) == 1.0
    assert quality.neighbours_kept(dense, swapped, k=1) == 0.0
    stats = pytest.importorskip("scipy.stats")
    a, b = RNG.integers(0, 3, size=(12, 4)) + 0.1, RNG.integers(0, 3, size=(12, 4)) + 0.1
    upper = np.triu_indices(12, 1)
    similar = [(quality._unit(v) @ quality._unit(v).T)[upper] for v in (a, b)]
    assert quality.rank_correlation(a, b) == pytest.approx(stats.spearmanr(*similar).statistic)
    with pytest.raises(InvalidArgument, match="k is 4"):
        quality.neighbours_kept(dense, dense, k=4)
    with pytest.raises(ShapeError, match="shapes"):
        quality.cosines(dense, dense[:2])


def test_the_default_text_needs_no_network_and_no_file() -> None:
    lines = datasets.calibration_texts()
    assert len(lines) > 500
    assert all(len(line) >= 30 for line in lines)
    assert any("statement" in line for line in lines)
    assert "pydoc_data" in datasets.calibration_source("pydoc")[1]


def test_texts_by_path_and_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.txt"
    file.write_text("= A heading =\n\nA line that is long enough to say something.\nshort\n")
    assert datasets.calibration_texts(file) == ["A line that is long enough to say something."]
    file.write_text("  \n")
    with pytest.raises(InvalidArgument, match="empty"):
        datasets.calibration_texts(file)
    file.write_bytes(b"\xff\xfe\x00binary")
    with pytest.raises(InvalidArgument, match="UTF-8"):
        datasets.calibration_texts(file)
    with pytest.raises(InvalidArgument, match=r"pydoc, .*wikitext2"):
        datasets.calibration_texts("no such text")
    monkeypatch.delenv("ZEROSKIP_DATA_DIR", raising=False)
    with pytest.raises(MissingDependency, match="ZEROSKIP_DATA_DIR"):
        datasets.wikitext2()
    monkeypatch.setenv("ZEROSKIP_DATA_DIR", str(tmp_path))
    with pytest.raises(MissingDependency, match="wikitext2_test"):
        datasets.wikitext2("test")
    with pytest.raises(InvalidArgument, match="test or valid"):
        datasets.wikitext2("train")


def test_wikitext_from_the_data_folder(data_dir: Path) -> None:
    assert len(datasets.paragraphs(datasets.wikitext2("test"))) > 1500
    assert len(datasets.calibration_texts("wikitext2")) > 1500
