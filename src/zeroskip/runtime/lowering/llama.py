"""Llama, Qwen2 (biases on queries, keys and values) and Qwen3 (a norm on each head of queries and keys)."""

from __future__ import annotations

from typing import Any

from .builder import Builder

# Frequencies that do not depend on the length of the sequence.
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "proportional")


def lower(b: Builder, base: Any) -> None:
    """Walks a `LlamaModel`, `Qwen2Model` or `Qwen3Model`."""
    config = base.config
    _check(b, config, base.rotary_emb)
    b.max_positions = config.max_position_embeddings
    rotary = base.rotary_emb
    freqs = b.tensor(rotary.inv_freq, "rotary_emb.inv_freq")
    scale = float(getattr(rotary, "attention_scaling", 1.0))
    b.embed("x", base.embed_tokens, "ids")
    activation = b.activation(config.hidden_act)
    for layer in base.layers:
        b.norm("n", "x", layer.input_layernorm, rms=True)
        _attend(b, layer.self_attn, config, freqs, scale)
        b.linear("y", "context", layer.self_attn.o_proj, residual="x")
        b.norm("n", "y", layer.post_attention_layernorm, rms=True)
        b.linear("gate", "n", layer.mlp.gate_proj)
        b.linear("up", "n", layer.mlp.up_proj)
        b.glu("gate", "gate", "up", activation)
        b.linear("x", "gate", layer.mlp.down_proj, residual="y")
    b.head("x", base.norm, rms=True)


def _attend(b: Builder, attention: Any, config: Any, freqs: str, scale: float) -> None:
    heads, kv_heads, dim = config.num_attention_heads, config.num_key_value_heads, attention.head_dim
    b.linear("q", "n", attention.q_proj)
    b.linear("k", "n", attention.k_proj)
    b.linear("v", "n", attention.v_proj)
    if hasattr(attention, "q_norm"):
        b.norm("q", "q", attention.q_norm, rms=True, groups=heads)
        b.norm("k", "k", attention.k_norm, rms=True, groups=kv_heads)
    b.rope("q", heads=heads, head_dim=dim, freqs=freqs, scale=scale)
    b.rope("k", heads=kv_heads, head_dim=dim, freqs=freqs, scale=scale)
    b.attention("context", "q", "k", "v", heads=heads, kv_heads=kv_heads, head_dim=dim, scale=attention.scaling)


def _check(b: Builder, config: Any, rotary: Any) -> None:
    kind = getattr(rotary, "rope_type", "default")
    if kind not in ROPE_TYPES:
        raise b.refuse(f"rope type {kind!r}")
    window = getattr(config, "sliding_window", None)
    sliding = "sliding_attention" in (getattr(config, "layer_types", None) or ())
    if sliding and window is not None and window < config.max_position_embeddings:
        raise b.refuse(f"sliding-window attention ({window} tokens)")
