"""Tiny random models of every family, and programs made from them: shared by the tests of lowering and of the program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from zeroskip import _native
from zeroskip.runtime.graph import Graph
from zeroskip.runtime.lowering import Lowered
from zeroskip.runtime.program import Program

ENCODER = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 72,
    "vocab_size": 99,
}
DECODER = {**ENCODER, "max_position_embeddings": 300}
LLAMA = {**DECODER, "num_attention_heads": 6, "num_key_value_heads": 2}


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**ENCODER, max_position_embeddings=300, hidden_act="gelu"))


def _bert_masked_lm() -> Any:
    from transformers import BertConfig, BertForMaskedLM

    return BertForMaskedLM(BertConfig(**ENCODER, max_position_embeddings=300, hidden_act="gelu_new"))


def _roberta() -> Any:
    from transformers import RobertaConfig, RobertaModel

    return RobertaModel(RobertaConfig(**ENCODER, max_position_embeddings=302, pad_token_id=1, type_vocab_size=1))


def _xlm_roberta() -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    return XLMRobertaModel(XLMRobertaConfig(**ENCODER, max_position_embeddings=302, pad_token_id=1, hidden_act="relu"))


def _mpnet() -> Any:
    from transformers import MPNetConfig, MPNetModel

    return MPNetModel(MPNetConfig(**ENCODER, max_position_embeddings=302, pad_token_id=1))


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertModel

    sizes = {"dim": 48, "n_layers": 2, "n_heads": 4, "hidden_dim": 72, "vocab_size": 99}
    return DistilBertModel(DistilBertConfig(**sizes, max_position_embeddings=300))


def _llama() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**LLAMA, tie_word_embeddings=True))


def _llama_scaled() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
    rope |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    return LlamaForCausalLM(LlamaConfig(**LLAMA, rope_parameters=rope, attention_bias=True, mlp_bias=True))


def _qwen2() -> Any:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    return Qwen2ForCausalLM(Qwen2Config(**LLAMA))


def _qwen3() -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    return Qwen3ForCausalLM(Qwen3Config(**LLAMA, head_dim=20))


def _gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(n_embd=48, n_layer=2, n_head=4, vocab_size=99, n_positions=300))


def _opt() -> Any:
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 72, "vocab_size": 99}
    return OPTForCausalLM(OPTConfig(**sizes, max_position_embeddings=300, word_embed_proj_dim=48))


ENCODERS: dict[str, Callable[[], Any]] = {
    "bert": _bert,
    "bert_masked_lm": _bert_masked_lm,
    "roberta": _roberta,
    "xlm_roberta": _xlm_roberta,
    "mpnet": _mpnet,
    "distilbert": _distilbert,
}
DECODERS: dict[str, Callable[[], Any]] = {
    "llama": _llama,
    "llama_scaled": _llama_scaled,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gpt2": _gpt2,
    "opt": _opt,
}


def random_model(make: Callable[[], Any]) -> Any:
    """A model with every parameter drawn, biases and norms too, so that none of them can be forgotten unseen."""
    import torch

    torch.manual_seed(7)
    model = make().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            around = 1.0 if "norm" in name.lower() or "ln_" in name else 0.0
            is_weight = parameter.ndim == 1 and name.endswith("weight")
            parameter.copy_(0.15 * torch.randn_like(parameter) + (around if is_weight else 0.0))
    return model


def pack(weight: np.ndarray[Any, Any], kernel: str = "spmm_dense_f32_scalar") -> Any:
    """A weight matrix packed for a dense kernel."""
    return _native.pack(kernel, *weight.shape, "dense", {"data": np.ascontiguousarray(weight)}, "float32", {})


def program_of(lowered: Lowered, kernel: str = "spmm_dense_f32_scalar", graph: Graph | None = None) -> Program:
    """A lowered model made runnable with one dense kernel for all sizes."""
    linears = {name: ((None, pack(weight, kernel)),) for name, weight in lowered.linears.items()}
    return Program(graph or lowered.graph, lowered.tensors, linears=linears)


def random_ids(lengths: Sequence[int], *, vocabulary: int = 99, seed: int = 0) -> list[np.ndarray[Any, Any]]:
    """Token ids of some sequences. They begin at 3: lower ones are padding and other special tokens."""
    generator = np.random.default_rng(seed)
    return [generator.integers(3, vocabulary, size=length).astype(np.int32) for length in lengths]
