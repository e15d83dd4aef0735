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
