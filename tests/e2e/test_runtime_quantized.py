"""A saved model whose matrices hold codes: it loads, and computes what the dequantised weights compute."""

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
from zeroskip.quantize import dequantize, quantize  # noqa: E402


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain") / "model"
    zeroskip.compile(small.bert(), tokenizer=small.word_tokenizer(), **small.OPTIONS).save(folder)
    return folder


@pytest.mark.parametrize(("dtype", "group", "symmetric"), [("int8", 0, True), ("int4", 32, True), ("int4", 32, False)])
def test_loads_and_runs_as_its_dequantised_weights(plain, tmp_path, dtype, group, symmetric):
    def codes(matrix):
        return quantize(matrix, dtype, group=group, symmetric=symmetric)

    one = small.rewritten(plain, tmp_path / "codes", codes, dtype)
    other = small.rewritten(plain, tmp_path / "floats", lambda matrix: dequantize(codes(matrix)), "float32")
    saved = io.open_saved(one, verify=True)
    assert {saved.matrix(name).dtype for name in saved.manifest.linears} == {dtype}
    assert (one / io.WEIGHTS).stat().st_size < (other / io.WEIGHTS).stat().st_size
    texts = ["the big red cat sat under a tree", "one dog"]
    coded, floats = zeroskip.load(one), zeroskip.load(other)
    assert coded.values == dtype
    np.testing.assert_allclose(coded.embed(texts), floats.embed(texts), atol=1e-6)
    before = zeroskip.load(plain).embed(texts)
    assert np.abs(floats.embed(texts) - before).max() > 1e-6
    coded.save(tmp_path / "again")
    np.testing.assert_array_equal(zeroskip.load(tmp_path / "again").embed(texts), coded.embed(texts))
