"""Small models with random weights, pruned, and tokenizers made on the spot: all that compile takes."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from zeroskip import io

NOUNS = ["cat", "dog", "house", "tree", "one", "two", "three"]
WORDS = ["the", "a", *NOUNS, "sat", "ran", "on", "in", "under", "and", "or", "big", "small", "red", "blue"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
OPTIONS = {"budget_s": 0.1, "batch_sizes": (1, 16)}


def word_tokenizer(*, special=True):
    """One token a word."""
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        ids = [("[CLS]", 2), ("[SEP]", 3)]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ids)
    names = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    names |= {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=40, **names)


def prune(model, sparsity=0.7, seed=0):
    """Zero random weights of the linear layers, but of the head."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear) and "head" not in name:
                module.weight[torch.rand_like(module.weight) < sparsity] = 0
    return model.eval()


def bert(**config):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    settings = {"vocab_size": 24, "max_position_embeddings": 40} | sizes | config
    return prune(transformers.BertModel(transformers.BertConfig(**settings)))


def llama(**config):
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    settings = {"vocab_size": 24, "intermediate_size": 64, "max_position_embeddings": 40, "tie_word_embeddings": True}
    found = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(settings | sizes | config)))
    found.generation_config.eos_token_id = None
    found.config.eos_token_id = None
    return prune(found)


def rewritten(source, folder, change, values):
    """The saved model with `change` made to each of its matrices."""
    saved = io.open_saved(source)
    matrices = {name: change(saved.matrix(name)) for name in saved.manifest.linears}
    names = {name for name in saved.tensors.names() if name not in saved.manifest.linears and "::" not in name}
    tensors = {name: np.array(saved.dense(name)) for name in names}
    files = {name: saved.read_file(name) for name in saved.files if name != io.WEIGHTS}
    manifest = dataclasses.replace(saved.manifest, values=values)
    return io.save(folder, manifest, matrices=matrices, tensors=tensors, files=files)
