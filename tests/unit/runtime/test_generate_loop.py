"""Sampling and the generation loop, over a model whose next token is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from zeroskip import InvalidArgument
from zeroskip.runtime.generate import generate
from zeroskip.runtime.sampling import Sampling
from zeroskip.runtime.text import TextSettings

VOCABULARY = 27  # 0 ends, 1 to 26 are letters


class Letters:
    """Stands for a tokenizer: one letter a token."""

    def __init__(self, **settings):
        self.files = {"tokenizer.json": b""}
        self.settings = TextSettings(**settings)

    def decode(self, ids):
        return "".join(chr(96 + i) for i in ids)


class Counting:
    """A model that says the alphabet, and counts what it was asked."""

    def __init__(self):
        self.calls = []

    def new_cache(self, max_tokens):
        return SimpleNamespace(room=max_tokens)

    def next_logits(self, ids, cache):
        self.calls.append(len(ids))
        cache.room -= len(ids)
        assert cache.room >= 0
        logits = np.zeros(VOCABULARY, dtype=np.float32)
        logits[(int(ids[-1]) + 1) % VOCABULARY] = 5
        return logits


def run(prompt=(1, 2), *, max_tokens=5, text=None, **options):
    model = Counting()
    ids = np.array(prompt, dtype=np.int32)
    found = generate(model, text or Letters(), ids, max_tokens=max_tokens, sampling=Sampling(), **options)
    return found, model


def test_greedy_runs_the_prompt_once_and_then_token_by_token():
    found, model = run()
    assert found.ids == [3, 4, 5, 6, 7]
    assert found.text == "cdefg"
    assert model.calls == [2, 1, 1, 1, 1]
    assert (found.prompt_tokens, found.decode_tokens, found.stopped) == (2, 4, "length")
    assert found.prefill_s > 0
    assert found.decode_tokens_per_s > 0


def test_end_token_ends_and_is_left_out():
    found, _ = run((24,), max_tokens=10, text=Letters(stop_ids=(0,)))
    assert found.ids == [25, 26]
    assert found.stopped == "end"


@pytest.mark.parametrize("streamed", [True, False])
def test_stop_text_ends_and_is_cut(streamed):
    pieces = []
    found, _ = run(max_tokens=20, stop=["gh", "zz"], stream=pieces.append if streamed else None)
    assert found.text == "cdef"
    assert found.stopped == "stop"
    if streamed:
        assert "".join(pieces) == "cdef"


def test_stream_holds_back_what_may_become_a_stop_text():
    pieces = []
    found, _ = run(max_tokens=4, stop=["fx"], stream=pieces.append)
    assert "".join(pieces) == found.text == "cdef"
    assert len(pieces) > 1


def test_the_context_is_never_exceeded():
    found, model = run(max_tokens=50, context=6)
    assert found.ids == [3, 4, 5, 6]
    assert found.stopped == "context"
    assert sum(model.calls) <= 6
    with pytest.raises(InvalidArgument, match="holds 2"):
        run(context=2)


def test_greedy_is_argmax():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal(50).astype(np.float32)
    assert Sampling().draw(logits, rng) == int(logits.argmax())


def test_a_seed_repeats_and_top_k_one_is_greedy():
    logits = np.random.default_rng(1).standard_normal(50).astype(np.float32)

    def draws(**options):
        sampling = Sampling(temperature=1.0, **options)
        rng = sampling.generator()
        return [sampling.draw(logits, rng) for _ in range(30)]

    assert draws(seed=3) == draws(seed=3)
    assert draws(seed=3) != draws(seed=4)
    assert set(draws(top_k=1)) == {int(logits.argmax())}
    assert set(draws(top_p=1e-9)) == {int(logits.argmax())}
    best = set(np.argsort(-logits)[:3].tolist())
    assert set(draws(top_k=3, seed=0)) <= best


def test_draws_follow_the_probabilities():
    logits = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    sampling = Sampling(temperature=1.0, seed=0)
    rng = sampling.generator()
    counts = np.bincount([sampling.draw(logits, rng) for _ in range(4000)], minlength=3) / 4000
    # Three standard deviations of a share of 4000 draws are below 0.024.
    np.testing.assert_allclose(counts, [0.5, 0.3, 0.2], atol=0.025)
    nucleus = Sampling(temperature=1.0, top_p=0.6, seed=0)
    rng = nucleus.generator()
    assert {nucleus.draw(logits, rng) for _ in range(200)} == {0, 1}


@pytest.mark.parametrize(
    "options",
    [{"temperature": -1}, {"temperature": float("nan")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.1}, {"seed": -1}],
)
def test_wrong_settings_are_refused(options):
    with pytest.raises(InvalidArgument, match=next(iter(options))):
        Sampling(**options)


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(InvalidArgument, match="not finite"):
        Sampling(temperature=1.0).draw(np.full(4, np.nan, dtype=np.float32), np.random.default_rng(0))
