"""A SentenceTransformer compiled in place: `encode` gives what it gave, faster paths or not."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
sentence_transformers = pytest.importorskip("sentence_transformers")
try:
    from sentence_transformers.sentence_transformer import modules
except ImportError:  # before version 6
    from sentence_transformers import models as modules
sys.path.insert(0, str(Path(__file__).parent))

import runtime_models as small  # noqa: E402

import zeroskip  # noqa: E402
from zeroskip.runtime import sentence  # noqa: E402

TEXTS = ["the cat sat on the big house", "a dog", "one two three and the small red tree ran", "blue"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("tiny")
    small.bert().save_pretrained(found)
    small.word_tokenizer().save_pretrained(found)
    return found


@pytest.fixture
def pair(folder):
    return make_pair(folder, "mean")


def make_pair(folder, pooling_mode):
    """The same model twice, the second one compiled, and the calls that its original `encode` got."""
    found = []
    for _ in range(2):
        inner = modules.Transformer(str(folder), max_seq_length=16)
        pooling = modules.Pooling(32, pooling_mode=pooling_mode)
        parts = [inner, pooling, modules.Normalize()]
        found.append(sentence_transformers.SentenceTransformer(modules=parts, device="cpu"))
    plain, fast = found
    calls = []
    original = fast.encode

    @functools.wraps(original)
    def encode(*args, **options):
        calls.append(options)
        return original(*args, **options)

    fast.encode = encode
    zeroskip.compile(fast, **small.OPTIONS)
    return plain, fast, calls


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2},
        {"show_progress_bar": True},
        {"convert_to_tensor": True},
        {"convert_to_numpy": False},
        {"normalize_embeddings": True},
        {"prompt": "the "},
        {"output_value": "sentence_embedding", "precision": "float32"},
    ],
)
@pytest.mark.parametrize("texts", [TEXTS, TEXTS[0]])
def test_encode_on_the_fast_path(pair, texts, options):
    plain, fast, calls = pair
    expected, found = plain.encode(texts, **options), fast.encode(texts, **options)
    assert calls == []
    assert type(found) is type(expected)
    assert len(found) == len(expected)
    if isinstance(expected, list):
        assert all(isinstance(item, torch.Tensor) for item in found)
        expected, found = torch.stack(expected), torch.stack(found)
    assert found.shape == expected.shape
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options", [{"output_value": "token_embeddings"}, {"precision": "int8"}, {"truncate_dim": 8}, {"device": "cpu"}]
)
def test_what_the_fast_path_does_not_do_goes_to_the_original(pair, options):
    plain, fast, calls = pair
    expected, found = plain.encode(TEXTS, **options), fast.encode(TEXTS, **options)
    assert len(calls) == 1
    assert type(found) is type(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("texts", [tuple(TEXTS), ["the cat " * 40], []])
def test_poolings_long_texts_and_none(folder, pooling, texts):
    plain, fast, calls = make_pair(folder, pooling)
    expected, found = plain.encode(texts), fast.encode(texts)
    assert calls == []
    assert type(found) is type(expected)
    assert len(found) == len(texts)
    if texts:
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_named_prompts_and_the_default_one(pair):
    plain, fast, calls = pair
    for model in (plain, fast):
        model.prompts = {"query": "the big ", "other": "a "}
    for options in ({"prompt_name": "query"}, {}):
        np.testing.assert_allclose(fast.encode(TEXTS, **options), plain.encode(TEXTS, **options), atol=1e-5)
    for model in (plain, fast):
        model.default_prompt_name = "other"
    np.testing.assert_allclose(fast.encode(TEXTS), plain.encode(TEXTS), atol=1e-5)
    assert calls == []


def test_positional_arguments_and_wrong_ones(pair):
    plain, fast, calls = pair
    np.testing.assert_allclose(fast.encode(TEXTS, None, "the ", 2), plain.encode(TEXTS, None, "the ", 2), atol=1e-5)
    assert calls == []
    with pytest.raises(TypeError):
        fast.encode()


def test_the_limit_can_be_set_afterwards(pair):
    plain, fast, calls = pair
    for limit in (5, 40, 16):
        plain.max_seq_length = fast.max_seq_length = limit
        np.testing.assert_allclose(fast.encode(["the cat " * 30]), plain.encode(["the cat " * 30]), atol=1e-5)
    assert calls == []


def test_compiling_twice_and_giving_back(pair):
    plain, fast, calls = pair
    first = fast.zeroskip
    zeroskip.compile(fast, **small.OPTIONS)
    assert fast.zeroskip is not first
    np.testing.assert_allclose(fast.encode(TEXTS), plain.encode(TEXTS), atol=1e-5)
    assert calls == []
    sentence.give_back(fast)
    assert "zeroskip" not in vars(fast)
    np.testing.assert_allclose(fast.encode(TEXTS), plain.encode(TEXTS), atol=1e-5)


def test_settings_are_kept_when_saved(pair, tmp_path):
    plain, fast, _ = pair
    fast.zeroskip.save(tmp_path / "m")
    again = zeroskip.load(tmp_path / "m")
    assert again.text.settings.max_length == 16
    assert again.text.settings.normalize
    np.testing.assert_allclose(again.embed(TEXTS), plain.encode(TEXTS), rtol=1e-4, atol=1e-5)
