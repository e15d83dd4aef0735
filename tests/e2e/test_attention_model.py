"""Sparse attention inside SmolLM2-135M, a real decoder with grouped heads."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.slow
TOKENS = 300


@pytest.fixture(scope="module")
def smollm2() -> Any:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from zeroskip import ZeroskipError, models

    try:
        return models.load("smollm2")
    except ZeroskipError as error:
        pytest.skip(f"SmolLM2-135M is not here: {error}")


@pytest.fixture(scope="module")
def ids(smollm2: Any) -> Any:
    """A page of running text."""
    text = " ".join(f"Sentence {i} of a page says that {i} times {i} is {i * i}." for i in range(40))
    return smollm2.tokenizer(text, return_tensors="pt").input_ids[:, :TOKENS]


def logits(loaded: Any, implementation: str, ids: Any, **inputs: Any) -> Any:
    import torch

    loaded.model.set_attn_implementation(implementation)
    with torch.inference_mode():
        return loaded.model(ids, **inputs).logits


def test_causal_logits_equal_those_of_eager(smollm2: Any, ids: Any) -> None:
    import torch

    from zeroskip.nn import attention

    attention.register("zeroskip")
    expected = logits(smollm2, "eager", ids)
    found = logits(smollm2, "zeroskip", ids)
    # sdpa, another order of the same sums, is as far from eager.
    noise = float((logits(smollm2, "sdpa", ids) - expected).abs().max())
    allowed = max(4 * noise, 1e-3)
    assert float((found - expected).abs().max()) <= allowed
    best = expected.topk(2, dim=-1).values
    clear = best[..., 0] - best[..., 1] > 2 * allowed
    assert torch.equal(found.argmax(-1)[clear], expected.argmax(-1)[clear])


def test_window_equals_eager_with_the_same_additive_mask(smollm2: Any, ids: Any) -> None:
    import torch

    from zeroskip.nn import attention
    from zeroskip.ops import Rule

    rule = Rule(window=64, global_tokens=4, causal=True)
    attention.register("zeroskip_window", rule)
    n = ids.shape[1]
    hidden = ~torch.from_numpy(rule.matrix(n, n))
    added = torch.zeros(1, 1, n, n).masked_fill(hidden, torch.finfo(torch.float32).min)
    expected = logits(smollm2, "eager", ids, attention_mask=added)
    found = logits(smollm2, "zeroskip_window", ids)
    noise = float((logits(smollm2, "sdpa", ids, attention_mask=added) - expected).abs().max())
    assert float((found - expected).abs().max()) <= max(4 * noise, 1e-3)
    assert float((found - logits(smollm2, "eager", ids)).abs().max()) > 0.1


def test_generated_tokens_equal_those_of_eager(smollm2: Any, ids: Any) -> None:
    import torch

    from zeroskip.nn import attention

    attention.register("zeroskip")
    found = []
    for implementation in ("zeroskip", "eager"):
        smollm2.model.set_attn_implementation(implementation)
        found.append(smollm2.model.generate(ids[:, :40], max_new_tokens=16, do_sample=False))
    assert torch.equal(*found)
