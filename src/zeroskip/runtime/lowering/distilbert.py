"""DistilBERT: BERT without token types, under other names."""

from __future__ import annotations

from typing import Any

from .builder import Builder


def lower(b: Builder, base: Any) -> None:
    """Walks a `DistilBertModel`."""
    config = base.config
    b.max_positions = config.max_position_embeddings
    b.embed("x", base.embeddings.word_embeddings, "ids")
    b.embed("x", base.embeddings.position_embeddings, "positions", add=True)
    b.norm("h", "x", base.embeddings.LayerNorm)
    heads, dim = config.n_heads, config.dim // config.n_heads
    activation = b.activation(config.activation)
    layers = base.transformer.layer
    for index, layer in enumerate(layers):
        b.linear("q", "h", layer.attention.q_lin)
        b.linear("k", "h", layer.attention.k_lin)
        b.linear("v", "h", layer.attention.v_lin)
        b.attention("context", "q", "k", "v", heads=heads, kv_heads=heads, head_dim=dim, scale=dim**-0.5)
        b.linear("x", "context", layer.attention.out_lin, residual="h")
        b.norm("h", "x", layer.sa_layer_norm)
        b.linear("ffn", "h", layer.ffn.lin1, activation=activation)
        b.linear("x", "ffn", layer.ffn.lin2, residual="h")
        b.norm("hidden" if index + 1 == len(layers) else "h", "x", layer.output_layer_norm)
    b.output("hidden")
