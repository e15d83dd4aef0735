"""OPT: learned positions counted from 2, norm first. The 350m model (norm after, projections) is refused."""

from __future__ import annotations

from typing import Any

from .builder import Builder


def lower(b: Builder, base: Any) -> None:
    """Walks an `OPTModel`."""
    config = base.config
    decoder = base.decoder
    if not config.do_layer_norm_before:
        raise b.refuse("do_layer_norm_before false (OPT-350m)")
    if decoder.project_in is not None or decoder.project_out is not None:
        raise b.refuse("word_embed_proj_dim other than hidden_size (OPT-350m)")
    b.max_positions = config.max_position_embeddings
    heads, dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    activation = b.activation(config.activation_function)
    b.embed("x", decoder.embed_tokens, "ids")
    b.embed("x", decoder.embed_positions, "positions", add=True, offset=decoder.embed_positions.offset)
    for layer in decoder.layers:
        attention = layer.self_attn
        b.norm("n", "x", layer.self_attn_layer_norm)
        b.linear("q", "n", attention.q_proj)
        b.linear("k", "n", attention.k_proj)
        b.linear("v", "n", attention.v_proj)
        b.attention("context", "q", "k", "v", heads=heads, kv_heads=heads, head_dim=dim, scale=attention.scaling)
        b.linear("y", "context", attention.out_proj, residual="x")
        b.norm("n", "y", layer.final_layer_norm)
        b.linear("ffn", "n", layer.fc1, activation=activation)
        b.linear("x", "ffn", layer.fc2, residual="y")
    b.head("x", decoder.final_layer_norm)
