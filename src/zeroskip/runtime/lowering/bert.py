"""BERT, RoBERTa, XLM-R and CamemBERT: norm after each residual; RoBERTa counts positions from the padding id on."""

from __future__ import annotations

from typing import Any

from .builder import Builder


def lower(b: Builder, base: Any) -> None:
    """Walks a `BertModel` or `RobertaModel`."""
    config = base.config
    if config.is_decoder or config.add_cross_attention:
        raise b.refuse("is_decoder or add_cross_attention")
    if getattr(config, "position_embedding_type", None) not in (None, "absolute"):
        raise b.refuse(f"position_embedding_type {config.position_embedding_type!r}")
    table = base.embeddings
    offset = 0 if config.model_type == "bert" else config.pad_token_id + 1
    b.max_positions = config.max_position_embeddings - offset
    b.embed("x", table.word_embeddings, "ids")
    b.embed("x", table.token_type_embeddings, "types", add=True)
    b.embed("x", table.position_embeddings, "positions", add=True, offset=offset)
    b.norm("h", "x", table.LayerNorm)
    layers = base.encoder.layer
    activation = b.activation(config.hidden_act)
    for index, layer in enumerate(layers):
        attend(b, layer.attention.self, config.num_attention_heads)
        b.linear("x", "context", layer.attention.output.dense, residual="h")
        b.norm("h", "x", layer.attention.output.LayerNorm)
        b.linear("ffn", "h", layer.intermediate.dense, activation=activation)
        b.linear("x", "ffn", layer.output.dense, residual="h")
        b.norm("hidden" if index + 1 == len(layers) else "h", "x", layer.output.LayerNorm)
    b.output("hidden")


def attend(b: Builder, attention: Any, heads: int) -> None:
    """Queries, keys and values of `h`, attended to in `context`."""
    b.linear("q", "h", attention.query)
    b.linear("k", "h", attention.key)
    b.linear("v", "h", attention.value)
    dim = attention.attention_head_size
    b.attention("context", "q", "k", "v", heads=heads, kv_heads=heads, head_dim=dim, scale=dim**-0.5)
