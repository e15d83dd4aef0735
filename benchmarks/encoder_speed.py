"""Sentences a second of an encoder: the pruned model compiled, against the dense one in torch and in ONNX Runtime.

    python benchmarks/encoder_speed.py [--model minilm] [--sparsity 0.6] [--method magnitude] [--json]
    python benchmarks/encoder_speed.py --pattern 8:16 --values int8 [--group 0] [--activations int8]

500 paragraphs of the test text of WikiText-2, tokenising included, in batches of up to 32. torch pads each batch to its
longest text, texts sorted by length as sentence-transformers does; ONNX Runtime runs the exported graph the same way,
with its attention fusion where that is faster. The engines take turns, each begins when the one before it has gone
quiet; medians of whole passes. How a model was pruned does not change its speed, so magnitude is the default; a pruned
folder can be passed as --pruned. Needs ZEROSKIP_DATA_DIR and the package of the model.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import torch
from _common import compile_settings, dense_and_pruned, silent, speed_parser

import zeroskip
from zeroskip import datasets, kernels
from zeroskip.bench import machine
from zeroskip.bench.demo import encoder
from zeroskip.formats import INTEGERS


def main() -> None:
    """Print one line an engine, and the ratios."""
    parser = speed_parser(__doc__, model="minilm", sparsity=0.6)
    parser.add_argument("--lines", type=int, default=500)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dense, pruned = dense_and_pruned(options)
    settings = compile_settings(options)
    fast = zeroskip.compile(pruned, **settings)
    # Numbers run a dense model in float32, its fastest; codes are compared with codes.
    whole = zeroskip.compile(dense, **(settings if options.values in INTEGERS else {"threads": options.threads}))
    texts = datasets.paragraphs(datasets.wikitext2("test"))[: options.lines]
    with tempfile.TemporaryDirectory() as work:
        speed, _, _ = encoder.measure(
            dense,
            whole,
            fast,
            texts,
            work=Path(work),
            threads=options.threads,
            rounds=options.rounds,
            fuse=True,
            progress=silent,
        )
    report(speed, fast, options)


def report(speed: dict[str, object], fast: zeroskip.CompiledModel, options: argparse.Namespace) -> None:
    """Rates and ratios, as JSON or for people."""
    rates = {engine["key"]: engine["rate"] for engine in speed["engines"] if engine["status"] == "ok"}  # type: ignore[attr-defined]
    ratios = {name: rates["zeroskip_sparse"] / rate for name, rate in rates.items() if name != "zeroskip_sparse"}
    row = {
        "model": options.model,
        "sparsity": options.sparsity,
        "pattern": options.pattern,
        "values": fast.values,
        "machine": machine.describe(kernels.num_threads()),
        "lines": options.lines,
        "sentences_per_s": rates,
        "ratios": ratios,
        "weights_bytes": fast.memory.sparse + fast.memory.dense,
    }
    if options.json:
        print(json.dumps(row))
        return
    print(fast.report(), file=sys.stderr)
    print(f"{options.model} at {options.sparsity:.0%}, {row['machine']}, {options.lines} lines")
    for engine in speed["engines"]:  # type: ignore[attr-defined]
        if engine["status"] == "ok":
            ratio = ratios.get(engine["key"])
            beside = f"  sparse is {ratio:.2f}x" if ratio else ""
            print(f"  {engine['label']:18s} {engine['rate']:8.1f} sentences/s  {engine['how']}{beside}")
        else:
            print(f"  {engine['label']:18s} {engine['reason']}")


if __name__ == "__main__":
    main()
