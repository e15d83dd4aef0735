"""The model families that zeroskip knows by name: where their blocks are and which linear layers a block holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["encoder", "decoder", "torch"]


@dataclass(frozen=True)
class Family:
    """One architecture.

    Args:
        name: What zeroskip calls it.
        model_types: `config.model_type` values of Hugging Face that belong to it.
        kind: `encoder` (embeds texts), `decoder` (continues them), `torch` (anything else).
        blocks: Dotted path of the list of blocks, below the base model.
        linears: The linear layers of a block, below the block, in the order they run.
        transposed: The weights are stored (in, out), as GPT-2's Conv1D does.
    """

    name: str
    model_types: tuple[str, ...]
    kind: Kind
    blocks: str
    linears: tuple[str, ...]
    transposed: bool = False


_BERT_LINEARS = (
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_LLAMA_LINEARS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)

FAMILIES: tuple[Family, ...] = (
    Family("bert", ("bert",), "encoder", "encoder.layer", _BERT_LINEARS),
    Family("roberta", ("roberta", "xlm-roberta", "camembert"), "encoder", "encoder.layer", _BERT_LINEARS),
    Family(
        "mpnet",
        ("mpnet",),
        "encoder",
        "encoder.layer",
        (
            "attention.attn.q",
            "attention.attn.k",
            "attention.attn.v",
            "attention.attn.o",
            "intermediate.dense",
            "output.dense",
        ),
    ),
    Family(
        "distilbert",
        ("distilbert",),
        "encoder",
        "transformer.layer",
        (
            "attention.q_lin",
            "attention.k_lin",
            "attention.v_lin",
            "attention.out_lin",
            "ffn.lin1",
            "ffn.lin2",
        ),
    ),
    Family("llama", ("llama",), "decoder", "layers", _LLAMA_LINEARS),
    Family("qwen", ("qwen2", "qwen3"), "decoder", "layers", _LLAMA_LINEARS),
    Family(
        "gpt2",
        ("gpt2",),
        "decoder",
        "h",
        ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"),
        transposed=True,
    ),
    Family(
        "opt",
        ("opt",),
        "decoder",
        "decoder.layers",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "fc1", "fc2"),
    ),
)


def family_of(model_type: str | None) -> Family | None:
    """The family that a Hugging Face `model_type` belongs to, or None."""
    return next((family for family in FAMILIES if model_type in family.model_types), None)


def supported() -> str:
    """The families as one line, for messages: `bert, roberta (roberta, xlm-roberta, camembert), ...`."""
    return ", ".join(
        family.name if family.model_types == (family.name,) else f"{family.name} ({', '.join(family.model_types)})"
        for family in FAMILIES
    )
