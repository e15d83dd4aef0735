"""One small compiled encoder, and one server on it, for all tests of this folder."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A compiled BERT with random weights: 40 tokens a text, vectors of 32 numbers and length 1."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    import runtime_models as small

    import zeroskip

    path = tmp_path_factory.mktemp("served") / "small"
    compiled = zeroskip.compile(small.bert(), tokenizer=small.word_tokenizer(), **small.OPTIONS)
    return compiled.save(path)


@pytest.fixture(scope="session")
def model(folder):
    """The same model, called directly."""
    import zeroskip

    return zeroskip.load(folder)


@pytest.fixture(scope="module")
def running(folder):
    """A server process."""
    from serving import serving

    with serving(folder, "--max-body-mb", "1", "--body-timeout", "1", "--max-texts", "300") as found:
        yield found
