"""Attention in the place of torch's function, and inside a small Hugging Face model."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from zeroskip._errors import DtypeError, InvalidArgument, ShapeError  # noqa: E402
from zeroskip.formats import BSR, CSR  # noqa: E402
from zeroskip.nn import attention as sparse  # noqa: E402
from zeroskip.ops import Rule  # noqa: E402

theirs = torch.nn.functional.scaled_dot_product_attention


def tensors(*shape: int, keys: int, kv_heads: int | None = None, d: int = 16) -> Any:
    torch.manual_seed(0)
    *batch, heads, n = shape
    kv = heads if kv_heads is None else kv_heads
    return torch.randn(*batch, heads, n, d), torch.randn(*batch, kv, keys, d), torch.randn(*batch, kv, keys, d)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, atol=3e-6, rtol=1e-5)


@pytest.mark.parametrize(("n", "m"), [(40, 40), (20, 50), (50, 20), (1, 30)])
def test_no_mask_and_causal_as_torch(n: int, m: int) -> None:
    q, k, v = tensors(2, 3, n, keys=m)
    close(sparse.scaled_dot_product_attention(q, k, v), theirs(q, k, v))
    close(sparse.scaled_dot_product_attention(q, k, v, scale=0.3), theirs(q, k, v, scale=0.3))
    close(sparse.scaled_dot_product_attention(q, k, v, is_causal=True), theirs(q, k, v, is_causal=True))


@pytest.mark.parametrize(
    "shape", [(48, 64), (1, 64), (3, 48, 64), (2, 1, 48, 64), (2, 3, 48, 64), (2, 3, 48, 1)], ids=str
)
def test_boolean_and_additive_masks_as_torch(shape: tuple[int, ...]) -> None:
    q, k, v = tensors(2, 3, 48, keys=64)
    seen = torch.rand(shape) < 0.5
    seen[..., 0] = True
    close(sparse.scaled_dot_product_attention(q, k, v, seen), theirs(q, k, v, attn_mask=seen))
    for hides in (-torch.inf, torch.finfo(torch.float32).min):
        added = torch.zeros(shape).masked_fill(~seen, hides)
        close(sparse.scaled_dot_product_attention(q, k, v, added), theirs(q, k, v, attn_mask=added))
    bias = torch.randn(shape)
    close(sparse.scaled_dot_product_attention(q, k, v, bias), theirs(q, k, v, attn_mask=bias))


def test_a_row_that_the_least_number_hides_whole() -> None:
    """Nothing is hidden then: torch gives the mean of the values, and so do we."""
    q, k, v = tensors(1, 2, 20, keys=20)
    added = torch.zeros(20, 20)
    added[3] = torch.finfo(torch.float32).min
    close(sparse.scaled_dot_product_attention(q, k, v, added), theirs(q, k, v, attn_mask=added))


def test_masks_of_blocks_become_blocks() -> None:
    seen = (torch.rand(4, 6) < 0.5).repeat_interleave(32, 0).repeat_interleave(32, 1)
    (blocks,) = sparse.masks_of(seen, (128, 192))
    assert isinstance(blocks, BSR)
    assert blocks.block == (32, 32)
    seen[5, 7] = ~seen[5, 7]
    (entries,) = sparse.masks_of(seen, (128, 192))
    assert isinstance(entries, CSR)
    assert torch.equal(torch.from_numpy(entries.to_dense()) != 0, seen)


def test_a_mask_is_converted_once_and_again_when_written_to() -> None:
    seen = torch.rand(20, 20) < 0.5
    first = sparse.masks_of(seen, (2, 20, 20))
    assert sparse.masks_of(seen, (2, 20, 20)) is first
    seen[0, 0] = ~seen[0, 0]
    again = sparse.masks_of(seen, (2, 20, 20))
    assert again is not first
    assert again[0].nnz == int(seen.sum())


def test_rules_and_sparse_masks() -> None:
    q, k, v = tensors(2, 3, 40, keys=40)
    rule = Rule(window=6)
    seen = torch.from_numpy(rule.matrix(40, 40))
    expected = theirs(q, k, v, attn_mask=seen)
    close(sparse.scaled_dot_product_attention(q, k, v, rule), expected)
    close(sparse.scaled_dot_product_attention(q, k, v, rule.csr(40, 40)), expected)


def test_grouped_heads_and_broadcast_batches() -> None:
    q, k, v = tensors(2, 6, 30, keys=30, kv_heads=2)
    close(sparse.scaled_dot_product_attention(q, k, v, enable_gqa=True), theirs(q, k, v, enable_gqa=True))
    with pytest.raises(ShapeError, match="enable_gqa"):
        sparse.scaled_dot_product_attention(q, k, v)
    one = k[:, :1], v[:, :1]
    close(sparse.scaled_dot_product_attention(q, *one), theirs(q, *(x.expand(2, 6, 30, 16) for x in one)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_types(dtype: Any) -> None:
    q, k, v = (x.to(dtype) for x in tensors(1, 2, 30, keys=30))
    out = sparse.scaled_dot_product_attention(q, k, v)
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), theirs(q.float(), k.float(), v.float()), atol=1e-2, rtol=1e-2)


def test_refuses_training_dropout_and_bad_masks() -> None:
    q, k, v = tensors(1, 2, 10, keys=10)
    with pytest.raises(InvalidArgument, match="query requires grad"):
        sparse.scaled_dot_product_attention(q.clone().requires_grad_(), k, v)
    with torch.no_grad():
        sparse.scaled_dot_product_attention(q.clone().requires_grad_(), k, v)
    with pytest.raises(InvalidArgument, match=r"dropout is 0\.1"):
        sparse.scaled_dot_product_attention(q, k, v, dropout_p=0.1)
    with pytest.raises(InvalidArgument, match="beside is_causal"):
        sparse.scaled_dot_product_attention(q, k, v, torch.ones(10, 10, dtype=torch.bool), is_causal=True)
    with pytest.raises(DtypeError, match=r"torch\.int64"):
        sparse.scaled_dot_product_attention(q, k, v, torch.ones(10, 10, dtype=torch.int64))
    with pytest.raises(ShapeError, match="does not broadcast"):
        sparse.scaled_dot_product_attention(q, k, v, torch.ones(10, 11, dtype=torch.bool))
    with pytest.raises(ShapeError, match="at least 3"):
        sparse.scaled_dot_product_attention(q[0, 0], k[0, 0], v[0, 0])


@pytest.fixture(scope="module")
def llama() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=100,
        hidden_size=48,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        attn_implementation="eager",
    )
    return transformers.LlamaForCausalLM(config).eval()


def logits(model: Any, implementation: str, ids: Any, **inputs: Any) -> Any:
    model.set_attn_implementation(implementation)
    with torch.inference_mode():
        return model(ids, **inputs).logits


def test_hugging_face_model_gives_the_logits_of_eager(llama: Any) -> None:
    sparse.register("zeroskip")
    ids = torch.randint(0, 100, (2, 70))
    close(logits(llama, "zeroskip", ids), logits(llama, "eager", ids))


@pytest.mark.parametrize("side", ["left", "right"])
def test_hugging_face_padding(llama: Any, side: str) -> None:
    sparse.register("zeroskip")
    ids, mask = torch.randint(0, 100, (2, 40)), torch.ones(2, 40, dtype=torch.int64)
    padding = slice(0, 9) if side == "left" else slice(31, 40)
    mask[1, padding] = 0
    found = logits(llama, "zeroskip", ids, attention_mask=mask)
    expected = logits(llama, "eager", ids, attention_mask=mask)
    close(found[mask.bool()], expected[mask.bool()])


def test_hugging_face_window_equals_the_additive_mask(llama: Any) -> None:
    rule = Rule(window=8, global_tokens=2, causal=True)
    sparse.register("zeroskip_window", rule)
    ids = torch.randint(0, 100, (1, 60))
    least = torch.finfo(torch.float32).min
    added = torch.zeros(1, 1, 60, 60).masked_fill(~torch.from_numpy(rule.matrix(60, 60)), least)
    found = logits(llama, "zeroskip_window", ids)
    close(found, logits(llama, "eager", ids, attention_mask=added))
    assert not torch.allclose(found, logits(llama, "eager", ids), atol=1e-3)


def test_hugging_face_window_and_padding(llama: Any) -> None:
    rule = Rule(window=8)
    sparse.register("zeroskip_window", rule)
    ids, mask = torch.randint(0, 100, (1, 60)), torch.ones(1, 60, dtype=torch.int64)
    mask[:, :10] = 0
    seen = torch.from_numpy(rule.matrix(60, 60)).tril() & mask.bool()
    seen[:10] |= torch.eye(60, dtype=torch.bool)[:10]
    added = torch.zeros(1, 1, 60, 60).masked_fill(~seen, torch.finfo(torch.float32).min)
    places = (mask.cumsum(-1) - 1).clamp(min=0)
    found = logits(llama, "zeroskip_window", ids, attention_mask=mask, position_ids=places)
    close(found[:, 10:], logits(llama, "eager", ids, attention_mask=added, position_ids=places)[:, 10:])


def test_hugging_face_generation_with_a_cache(llama: Any) -> None:
    sparse.register("zeroskip")
    ids = torch.randint(0, 100, (2, 12))
    found = []
    for implementation in ("zeroskip", "eager"):
        llama.set_attn_implementation(implementation)
        found.append(llama.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0))
    assert torch.equal(*found)


def test_register_refuses_names_that_are_taken() -> None:
    pytest.importorskip("transformers")
    for name in ("eager", "sdpa"):
        with pytest.raises(InvalidArgument, match="choose another name"):
            sparse.register(name)
    with pytest.raises(InvalidArgument, match="rule is a str"):
        sparse.register("other", "window")
