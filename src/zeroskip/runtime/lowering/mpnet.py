"""MPNet: BERT without token types, with a bias on attention scores that depends on the distance of query and key."""

from __future__ import annotations

from typing import Any

import numpy as np

from .builder import Builder, Float32, array_of


def lower(b: Builder, base: Any) -> None:
    """Walks an `MPNetModel`."""
    config = base.config
    table = base.embeddings
    offset = table.padding_idx + 1
    reach = config.max_position_embeddings - offset
    b.max_positions = reach
    b.embed("x", table.word_embeddings, "ids")
    b.embed("x", table.position_embeddings, "positions", add=True, offset=offset)
    b.norm("h", "x", table.LayerNorm)
    bias = b.tensor(distance_bias(base.encoder, reach), "encoder.relative_attention_bias.by_distance")
    heads, dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    activation = b.activation(config.hidden_act)
    layers = base.encoder.layer
    for index, layer in enumerate(layers):
        attention = layer.attention.attn
        b.linear("q", "h", attention.q)
        b.linear("k", "h", attention.k)
        b.linear("v", "h", attention.v)
        sizes = {"heads": heads, "kv_heads": heads, "head_dim": dim}
        b.attention("context", "q", "k", "v", **sizes, scale=dim**-0.5, bias=bias)
        b.linear("x", "context", attention.o, residual="h")
        b.norm("h", "x", layer.attention.LayerNorm)
        b.linear("ffn", "h", layer.intermediate.dense, activation=activation)
        b.linear("x", "ffn", layer.output.dense, residual="h")
        b.norm("hidden" if index + 1 == len(layers) else "h", "x", layer.output.LayerNorm)
    b.output("hidden")


def distance_bias(encoder: Any, reach: int) -> Float32:
    """(heads, 2 * reach - 1): the bias of each distance query - key, from -(reach - 1) up, read from its bucket."""
    import torch

    distance = torch.arange(-(reach - 1), reach)
    bucket = encoder.relative_position_bucket(-distance, num_buckets=32)
    return np.ascontiguousarray(array_of(encoder.relative_attention_bias.weight)[bucket.numpy()].T)
