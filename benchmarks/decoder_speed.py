"""Prefill and decode speed of a language model: the pruned model compiled, against the dense one in torch.

    python benchmarks/decoder_speed.py [--model smollm2] [--sparsity 0.5] [--values float16] [--json]
    python benchmarks/decoder_speed.py --pattern 8:16 --values int8 [--group 0] [--activations int8] [--whole]

A prompt of 512 tokens of the test text of WikiText-2, then 64 tokens one at a time. torch runs Hugging Face's model in
a bare greedy loop with its cache, which is faster than its `generate`, and only the last position of the prompt goes
through the head. The engines take turns in one process, each begins when the one before it has gone quiet; medians.
Also the time of compiling and of loading the saved model. How a model was pruned does not change its speed, so
magnitude is the default. Needs ZEROSKIP_DATA_DIR and the package of the model, whose dense weights are dequantised from
4 bits.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _common import compile_settings, dense_and_pruned, silent, speed_parser

import zeroskip
from zeroskip import datasets, kernels
from zeroskip.bench import machine
from zeroskip.bench.demo import decoder


def main() -> None:
    """Print one line an engine for prefill and for decode, and the ratios."""
    parser = speed_parser(__doc__, model="smollm2", sparsity=0.5)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--whole", action="store_true", help="also the dense model, compiled with the same values")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dense, pruned = dense_and_pruned(options)
    settings = compile_settings(options)
    start = time.perf_counter()
    fast = zeroskip.compile(pruned, **settings)
    times = {"compile_s": time.perf_counter() - start, "load_s": load_seconds(fast)}
    whole = zeroskip.compile(dense, **settings) if options.whole else None
    ids = fast.text.encode(["\n".join(datasets.paragraphs(datasets.wikitext2("test"))[:60])], special=False, cut=False)
    speeds = decoder.measure(
        dense,
        whole,
        fast,
        ids[0][: decoder.PREFILL_TOKENS],
        decode_tokens=options.tokens,
        rounds=options.rounds,
        progress=silent,
    )
    report(speeds, fast, times, options)


def load_seconds(model: zeroskip.CompiledModel) -> float:
    """Save the model and load it again, its file in the page cache; the fastest of three."""
    with tempfile.TemporaryDirectory() as folder:
        path = model.save(Path(folder) / "model")
        times = []
        for _ in range(3):
            start = time.perf_counter()
            zeroskip.load(path)
            times.append(time.perf_counter() - start)
    return min(times)


def report(
    speeds: list[dict[str, Any]], fast: zeroskip.CompiledModel, times: dict[str, float], options: argparse.Namespace
) -> None:
    """Rates and ratios, as JSON or for people."""
    row: dict[str, Any] = {
        "model": options.model,
        "sparsity": options.sparsity,
        "pattern": options.pattern,
        "values": fast.values,
        "group": max((layer.group for layer in fast.plan if layer.group is not None), default=None),
        "machine": machine.describe(kernels.num_threads()),
        **times,
        "weights_bytes": fast.memory.sparse + fast.memory.dense,
    }
    for speed in speeds:
        row[speed["key"]] = {engine["key"]: engine["rate"] for engine in speed["engines"] if engine["status"] == "ok"}
    if options.json:
        print(json.dumps(row))
        return
    print(fast.report(), file=sys.stderr)
    print(f"{options.model} at {options.sparsity:.0%}, {fast.values} values, {row['machine']}")
    print(f"  compiled in {times['compile_s']:.1f} s, loaded in {times['load_s']:.2f} s")
    for speed in speeds:
        rates = row[speed["key"]]
        for engine in speed["engines"]:
            if engine["status"] == "ok":
                ratio = rates["zeroskip_sparse"] / engine["rate"]
                print(
                    f"  {speed['key']:8s} {engine['label']:18s} {engine['rate']:8.1f} tokens/s  sparse is {ratio:.2f}x"
                )


if __name__ == "__main__":
    main()
