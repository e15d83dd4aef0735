"""One row of `zeroskip bench model`: one way to run a language model (docs/bench-model.md says more).

A change of meaning or a field taken away raises `VERSION`; a field added does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..schema import check_compared

NAME = "zeroskip.bench.model"
VERSION = 1

_TEXT, _INT, _NUMBER, _DICT = (str,), (int,), (int, float), (dict,)

FIELDS: dict[str, tuple[tuple[type, ...], bool, str]] = {
    # name: types, whether it may be null, meaning
    "schema": (_TEXT, False, "always zeroskip.bench.model"),
    "schema_version": (_INT, False, "1"),
    "row": (_TEXT, False, "engine:values, and of ours what was taken away; unique"),
    "label": (_TEXT, False, "the same for people"),
    "model": (_TEXT, False, "the dense model"),
    "engine": (_TEXT, False, "zeroskip, torch, onnxruntime, openvino, llamacpp"),
    "engine_version": (_TEXT, True, "version of its package; null where it did not start"),
    "how": (_TEXT, False, "what was done to the model, and how it runs"),
    "values": (_TEXT, False, "value type of the weights"),
    "sparsity": (_NUMBER, False, "share of zeros in the linear layers"),
    "layers": (_INT, False, "blocks that the model has"),
    "threads": (_INT, False, "of the engine's process"),
    "status": (_TEXT, False, "ok; failed (wrong result, no answer, no build); missing (not installed)"),
    "reason": (_TEXT, True, "why it failed or is missing; null when ok"),
    "rounds": (_INT, False, "turns that it had"),
    "prompt": (_INT, False, "tokens of the prompt of first_token_s"),
    "context": (_INT, False, "tokens of each sequence before the decoded ones"),
    "steps": (_INT, False, "tokens decoded of each sequence"),
    "disk_bytes": (_INT, True, "of the files that hold the weights"),
    "bits_per_weight": (_NUMBER, True, "disk_bytes times 8 over the parameters of the dense model, tied ones once"),
    "resident_bytes": (_INT, True, "of the process after it decoded one sequence"),
    "peak_bytes": (_INT, True, "the most it held, with the largest batch"),
    "load_s": (_NUMBER, True, "median of seconds to load the model in a new process, imports included"),
    "first_token_s": (_NUMBER, True, "median over rounds of seconds from the prompt to its next token"),
    "decode_tokens_per_s": (
        _DICT,
        False,
        "by sequences at a time: median over rounds of tokens a second of all of them",
    ),
    "ratio": (
        _DICT,
        False,
        "median over rounds of torch's float32 time over this row's: `first` token, and each number of sequences",
    ),
    "perplexity": (_NUMBER, True, "exp of the mean negative log-likelihood over all windows"),
    "kl": (_NUMBER, True, "mean divergence from the dense model in torch, float32, in nats a prediction"),
    "top1": (_NUMBER, True, "share of predictions with the same likeliest token"),
    "predictions": (_INT, True, "how many there were"),
    "machine": (_DICT, False, "processor, caches, instruction sets, memory, system"),
    "versions": (_DICT, False, "of Python, zeroskip and the libraries; null where not installed"),
    "commit": (_TEXT, True, "commit of zeroskip's checkout, + behind it if files differ; null outside of one"),
    "when": (_TEXT, False, "UTC, ISO 8601"),
}


def check_row(row: Mapping[str, Any]) -> None:
    """Refuse a row that does not follow the schema.

    Raises:
        InvalidArgument: Naming the field, its value and the rule.
    """
    check_compared(row, FIELDS, NAME, VERSION)
