"""Tiny models of every family, with random weights, and what they are calibrated with."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY = 64
_ENCODER = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}


def _bert() -> Any:
    return transformers.BertModel(transformers.BertConfig(**_ENCODER))


def _bert_classifier() -> Any:
    return transformers.BertForSequenceClassification(transformers.BertConfig(**_ENCODER))


def _roberta() -> Any:
    return transformers.RobertaModel(transformers.RobertaConfig(**_ENCODER))


def _xlm_roberta() -> Any:
    return transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**_ENCODER))


def _mpnet() -> Any:
    return transformers.MPNetModel(transformers.MPNetConfig(**_ENCODER))


def _distilbert() -> Any:
    config = transformers.DistilBertConfig(
        vocab_size=VOCABULARY, dim=32, n_layers=2, n_heads=4, hidden_dim=64, max_position_embeddings=40
    )
    return transformers.DistilBertModel(config)


def _llama() -> Any:
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**_DECODER, tie_word_embeddings=True))


def _qwen2() -> Any:
    return transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**_DECODER))


def _qwen3() -> Any:
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**_DECODER, tie_word_embeddings=True))


def _gpt2() -> Any:
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=40, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def _opt() -> Any:
    config = transformers.OPTConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        ffn_dim=64,
        max_position_embeddings=40,
        word_embed_proj_dim=32,
    )
    return transformers.OPTForCausalLM(config)


MAKERS: dict[str, tuple[Callable[[], Any], str, int]] = {
    # name: how it is made, its family, linear layers in a block
    "bert": (_bert, "bert", 6),
    "bert_classifier": (_bert_classifier, "bert", 6),
    "roberta": (_roberta, "roberta", 6),
    "xlm_roberta": (_xlm_roberta, "roberta", 6),
    "mpnet": (_mpnet, "mpnet", 6),
    "distilbert": (_distilbert, "distilbert", 6),
    "llama": (_llama, "llama", 7),
    "qwen2": (_qwen2, "qwen", 7),
    "qwen3": (_qwen3, "qwen", 7),
    "gpt2": (_gpt2, "gpt2", 4),
    "opt": (_opt, "opt", 6),
}


def make(name: str) -> Any:
    """A tiny model with random weights, the same on every call."""
    torch.manual_seed(0)
    return MAKERS[name][0]().eval()


def token_batches(count: int = 4, *, padded: bool = False) -> list[dict[str, Any]]:
    """Batches of three rows of twelve tokens; `padded` leaves fewer real ones in some rows."""
    generator = torch.Generator().manual_seed(5)
    batches = []
    for _ in range(count):
        ids = torch.randint(4, VOCABULARY, (3, 12), generator=generator)
        mask = torch.ones_like(ids)
        if padded:
            mask[1, 7:] = 0
            mask[2, 3:] = 0
            ids = ids * mask + (1 - mask)
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


@pytest.fixture(params=sorted(MAKERS))
def family_model(request: pytest.FixtureRequest) -> tuple[str, Any]:
    """Every tiny model in turn."""
    return request.param, make(request.param)
