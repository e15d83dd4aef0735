"""What the demo says beside its figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from zeroskip.bench.demo.flow import DemoSettings, _notes
from zeroskip.models import LoadedModel


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("text", [None, "lines.txt"])
@pytest.mark.parametrize("extra", [{}, {"gguf_file": "model.gguf"}], ids=["plain", "gguf"])
def test_notes_are_whole_sentences(extra: dict[str, str], text: str | None, quick: bool) -> None:
    settings = DemoSettings("model", Path("out"), text=text, quick=quick)
    notes = _notes(settings, LoadedModel(None, None, "decoder", "llama", "model", dict(extra)))
    assert len(notes) == bool(extra) + (text is None) + quick
    assert any("GGUF" in note for note in notes) == bool(extra)
    for note in notes:
        sentences = note.split(". ")
        assert all(sentence[0].isupper() for sentence in sentences)
        assert len(set(sentences)) == len(sentences)
        assert note.endswith(".")


def test_the_reference_of_codes_is_what_they_mean(tmp_path: Path) -> None:
    """Layers with codes get their values; what is tied to one of them, and layers of numbers, stay as they were."""
    torch = pytest.importorskip("torch")
    from zeroskip.bench.saved import as_saved
    from zeroskip.formats import DenseMatrix
    from zeroskip.io import Manifest, save
    from zeroskip.quantize import quantize

    model = torch.nn.ModuleDict({name: torch.nn.Linear(32, 8) for name in ("codes", "numbers")})
    model["tied"] = torch.nn.Embedding(8, 32)
    model["tied"].weight = model["codes"].weight
    weights = {name: model[name].weight.detach().numpy().copy() for name in ("codes", "numbers")}
    matrices = {name: DenseMatrix(weight, "float32") for name, weight in weights.items()}
    rounded = quantize(matrices["codes"], "int4")
    manifest = Manifest("encoder", "bert", "test", "int4", {}, {}, [], {}, {})
    matrices["codes"] = rounded
    folder = save(tmp_path / "model", manifest, matrices=matrices, tensors={}, files={})
    found = as_saved(LoadedModel(model, None, "encoder", "bert", "test", {}), folder).model
    assert (found["codes"].weight.detach().numpy() == rounded.to_dense()).all()
    for name, weight in (("numbers", weights["numbers"]), ("tied", weights["codes"])):
        assert (found[name].weight.detach().numpy() == weight).all()
    assert (model["codes"].weight.detach().numpy() == weights["codes"]).all()
