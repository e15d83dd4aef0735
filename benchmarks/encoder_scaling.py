"""How an encoder's speed grows with the number of threads.

    python benchmarks/encoder_scaling.py [--threads 1 2] [--sparsity 0 0.6] [--shape minilm|base]
                                         [--activations int16] [--processes] [--json]

A BERT with random weights in the shape of all-MiniLM-L6-v2 or of BERT-base, pruned at random: how a model was pruned,
and what its weights are, does not change its speed. Sequences have the lengths of paragraphs (log-normal with a median
of 120 tokens, at most 256; seeded). Each number of threads has a model compiled for it, since the plan depends on it;
then they take turns, torch (dense, padded batches of 32 sorted by length) beside them. Ratios are taken within a round
and are medians. Needs torch and transformers, no data and no package of a model.

The other way to use many cores is `--processes`: as many processes of one thread each, all at once, against one alone.
They never wait for each other, but each reads weights of its own.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from _common import parser, pruned_copy, silent
from transformers import BertConfig, BertModel

import zeroskip
from zeroskip import kernels, models
from zeroskip.bench import machine
from zeroskip.kernels.cpu import set_num_threads
from zeroskip.ops.clock import settle
from zeroskip.runtime.embed import embed_ids

SHAPES = {"minilm": (6, 384, 1536, 12), "base": (12, 768, 3072, 12)}
VOCABULARY = 1000
BATCH = 32


def main() -> None:
    """Print a line for each sparsity and number of threads."""
    options_of = parser(__doc__)
    options_of.add_argument("--threads", type=int, nargs="+", default=[1, kernels.num_threads()])
    options_of.add_argument("--sparsity", type=float, nargs="+", default=[0.0, 0.6])
    options_of.add_argument("--shape", choices=sorted(SHAPES), default="minilm")
    options_of.add_argument("--sequences", type=int, default=200)
    options_of.add_argument("--rounds", type=int, default=5)
    options_of.add_argument("--budget", type=float, default=20.0, help="seconds to compile for one number of threads")
    options_of.add_argument("--activations", help="what x may be rounded to, as in `zeroskip compile`")
    options_of.add_argument("--processes", action="store_true", help="also as many processes of one thread each")
    options_of.add_argument("--json", action="store_true")
    options = options_of.parse_args()
    dense = random_bert(options.shape)
    ids = sequences(options.sequences)
    rows = []
    for sparsity in options.sparsity:
        pruned = pruned_copy(dense, method="random", sparsity=sparsity) if sparsity else dense
        how = {"budget_s": options.budget, "activations": options.activations}
        passes = {threads: zeroskip_pass(pruned, ids, threads, how) for threads in options.threads}
        others = {threads: torch_pass(dense.model, ids, threads) for threads in options.threads}
        rows += measure(passes, others, options.rounds, sparsity, len(ids))
        if options.processes:
            alone = zeroskip.compile(pruned, threads=1, cache=False, progress=silent, **how)
            for row in rows[-len(passes) :]:
                row["scaling_processes"] = scaling_of_processes(alone, ids, row["threads"])
    found = {"machine": machine.describe(max(options.threads)), "shape": options.shape, "rows": rows}
    print(json.dumps(found) if options.json else text_of(found))


def random_bert(shape: str) -> models.LoadedModel:
    """A dense encoder with random weights."""
    layers, width, inner, heads = SHAPES[shape]
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=inner,
    )
    return models.load(BertModel(config).eval())


def sequences(count: int) -> list[np.ndarray[Any, Any]]:
    """Token ids with the lengths of paragraphs."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(np.log(120), 0.6, count), 8, 256).astype(int)
    return [rng.integers(0, VOCABULARY, length).astype(np.int32) for length in lengths]


def zeroskip_pass(
    model: models.LoadedModel, ids: Sequence[Any], threads: int, how: dict[str, Any]
) -> Callable[[], None]:
    """All sequences once, on so many threads."""
    return pass_of(zeroskip.compile(model, threads=threads, cache=False, progress=silent, **how), ids)


def pass_of(fast: Any, ids: Sequence[Any]) -> Callable[[], None]:
    """All sequences once."""

    def run() -> None:
        embed_ids(fast.vectors, ids, features=fast.features, normalize=False, batch_size=None)

    return run


def scaling_of_processes(model: Any, ids: Sequence[Any], count: int) -> float:
    """Sequences a second of `count` processes at once over those of one alone, one thread each."""
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        return sum(_rates(folder, ids, count)) / statistics.median(_rates(folder, ids, 1))


def _rates(folder: str, ids: Sequence[Any], count: int) -> list[float]:
    """Passes a second of each process, while all are at work."""
    context = multiprocessing.get_context("spawn")
    ready, found = context.Barrier(count), context.Queue()
    every = [context.Process(target=_one, args=(folder, list(ids), ready, found)) for _ in range(count)]
    for process in every:
        process.start()
    rates = [found.get(timeout=300) for _ in every]
    for process in every:
        process.join()
    return rates


def _one(folder: str, ids: list[Any], ready: Any, found: Any) -> None:
    set_num_threads(1)
    run = pass_of(zeroskip.load(folder), ids)
    run()
    times = []
    for _ in range(3):
        ready.wait()
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    found.put(1 / statistics.median(times))


def torch_pass(model: Any, ids: Sequence[Any], threads: int) -> Callable[[], None]:
    """The same in torch, dense."""
    order = sorted(range(len(ids)), key=lambda place: -ids[place].size)
    runs = []
    for start in range(0, len(order), BATCH):
        part = [torch.from_numpy(ids[place].astype(np.int64)) for place in order[start : start + BATCH]]
        padded = torch.nn.utils.rnn.pad_sequence(part, batch_first=True)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(item) for item in part], batch_first=True)
        runs.append({"input_ids": padded, "attention_mask": mask})

    def run() -> None:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            for batch in runs:
                model(**batch)

    return run


def measure(
    passes: dict[int, Callable[[], None]],
    others: dict[int, Callable[[], None]],
    rounds: int,
    sparsity: float,
    count: int,
) -> list[dict[str, Any]]:
    """One row a number of threads: sequences a second, and ratios to the fewest threads and to torch."""
    times: dict[int, list[float]] = {threads: [] for threads in passes}
    times_of_torch: dict[int, list[float]] = {threads: [] for threads in passes}
    for turn in range(rounds + 1):  # the first warms up
        for threads in passes:
            set_num_threads(threads)
            for run, kept in ((passes[threads], times), (others[threads], times_of_torch)):
                settle()
                start = time.perf_counter()
                run()
                if turn:
                    kept[threads].append(time.perf_counter() - start)
    least = min(times)
    return [
        {
            "sparsity": sparsity,
            "threads": threads,
            "sequences_per_s": count / statistics.median(times[threads]),
            "scaling": ratio(times[least], times[threads]),
            "over_torch": ratio(times_of_torch[threads], times[threads]),
            "scaling_torch": ratio(times_of_torch[least], times_of_torch[threads]),
        }
        for threads in times
    ]


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """Median of the ratios of a round."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))


def text_of(found: dict[str, Any]) -> str:
    """The rows for people."""
    lines = [f"{found['shape']} shape, {found['machine']}", ""]
    lines.append("zeros  threads  sequences/s  scaling  over torch  torch's scaling  processes' scaling")
    for row in found["rows"]:
        lines.append(
            f"{row['sparsity']:5.0%}  {row['threads']:7d}  {row['sequences_per_s']:11.1f}  {row['scaling']:7.2f}  "
            f"{row['over_torch']:10.2f}  {row['scaling_torch']:15.2f}"
            + (f"  {row['scaling_processes']:19.2f}" if "scaling_processes" in row else "")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
