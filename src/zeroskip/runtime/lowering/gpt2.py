"""GPT-2: learned positions, norm first, weights stored (in, out), queries, keys and values in one matrix."""

from __future__ import annotations

from typing import Any

from .builder import Builder


def lower(b: Builder, base: Any) -> None:
    """Walks a `GPT2Model`."""
    config = base.config
    if config.add_cross_attention:
        raise b.refuse("add_cross_attention")
    b.max_positions = config.max_position_embeddings
    width, heads = config.hidden_size, config.num_attention_heads
    dim = width // heads
    activation = b.activation(config.activation_function)
    b.embed("x", base.wte, "ids")
    b.embed("x", base.wpe, "positions", add=True)
    b.buffer("qkv", 3 * width)
    q, k, v = (b.view(name, "qkv", at * width, width) for at, name in enumerate("qkv"))
    for index, block in enumerate(base.h):
        scale = dim**-0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= index + 1
        b.norm("n", "x", block.ln_1)
        b.linear("qkv", "n", block.attn.c_attn, transposed=True)
        b.attention("context", q, k, v, heads=heads, kv_heads=heads, head_dim=dim, scale=scale)
        b.linear("y", "context", block.attn.c_proj, residual="x", transposed=True)
        b.norm("n", "y", block.ln_2)
        b.linear("ffn", "n", block.mlp.c_fc, activation=activation, transposed=True)
        b.linear("x", "ffn", block.mlp.c_proj, residual="y", transposed=True)
    b.head("x", base.ln_f)
