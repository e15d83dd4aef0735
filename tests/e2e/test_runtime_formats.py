"""A saved model may hold its matrices in any storage format: it loads, saves again and computes the same."""

import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
sys.path.insert(0, str(Path(__file__).parent))

import runtime_models as small  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip import io  # noqa: E402
from zeroskip.formats import registry  # noqa: E402
from zeroskip.quantize import dequantize, quantize  # noqa: E402

PARAMS = {
    "bsr": {"block": (4, 2)},
    "nm": {"n": 2, "m": 8},
    "vnm": {"v": 2, "n": 2, "m": 8},
    "sell": {"c": 4, "sigma": 8},
}
TEXTS = ["the big red cat sat under a tree", "one dog"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "model"
    zeroskip.compile(small.bert(), tokenizer=small.word_tokenizer(), **small.OPTIONS).save(folder)
    return folder


def stored_as(name, matrix):
    """The matrix with two of each eight columns kept, which every format can hold."""
    dense = matrix.to_dense().copy()
    dense[:, ~np.isin(np.arange(dense.shape[1]) % 8, (0, 3))] = 0
    return registry.get(name).from_dense(dense, **PARAMS.get(name, {}))


@pytest.mark.parametrize("name", sorted(registry.names()))
def test_every_format_loads_and_runs(plain, tmp_path, name):
    one = small.rewritten(plain, tmp_path / name, lambda matrix: stored_as(name, matrix), "float32")
    other = small.rewritten(plain, tmp_path / "plain", lambda matrix: stored_as("csr", matrix), "float32")
    saved = io.open_saved(one, verify=True)
    assert {saved.matrix(layer).name for layer in saved.manifest.linears} == {name}
    model, wanted = zeroskip.load(one), zeroskip.load(other).embed(TEXTS)
    np.testing.assert_allclose(model.embed(TEXTS), wanted, atol=1e-6)
    model.save(tmp_path / "again")
    np.testing.assert_array_equal(zeroskip.load(tmp_path / "again").embed(TEXTS), model.embed(TEXTS))


@pytest.mark.parametrize("name", sorted(registry.names()))
def test_every_format_of_codes_runs_as_its_dequantised_weights(plain, tmp_path, name):
    def codes(matrix):
        return quantize(stored_as(name, matrix), "int8")

    one = small.rewritten(plain, tmp_path / "codes", codes, "int8")
    other = small.rewritten(plain, tmp_path / "floats", lambda matrix: dequantize(codes(matrix)), "float32")
    np.testing.assert_allclose(zeroskip.load(one).embed(TEXTS), zeroskip.load(other).embed(TEXTS), atol=1e-6)
