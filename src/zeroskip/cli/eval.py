"""Measure quality: perplexity of a decoder; how close a compiled model stays to the dense one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError
from ._options import add_threads, positive

if TYPE_CHECKING:
    from ..runtime import CompiledModel

EPILOG = """\
examples:
  zeroskip eval smollm2-50-fast --text wikitext2_test.txt             perplexity over the first 40 windows of 512 tokens
  zeroskip eval smollm2-50-fast --text test.txt --against smollm2     with KL divergence and top-1 agreement
  zeroskip eval minilm-60-fast --text sentences.txt --against minilm  cosine and nearest neighbours kept, a text a line

A decoder's text is tokenised in one call without special tokens; windows do not overlap, each predicts all its tokens
but the first, and perplexity is exp of the mean over windows. With no --text the documentation inside this Python is
used, and the output says so. --against is the dense model: anything `zeroskip prune` takes.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="COMPILED", help="folder that `zeroskip compile` wrote")
    what = parser.add_argument_group("what to measure")
    what.add_argument("--text", metavar="FILE|NAME", help="a text file, pydoc or wikitext2 (pydoc)")
    what.add_argument("--against", metavar="MODEL", help="the dense model to compare with; encoders need it")
    what.add_argument("--window", type=positive, default=512, metavar="N", help="decoders: tokens of a window (512)")
    what.add_argument("--windows", type=positive, default=40, metavar="N", help="decoders: most windows (40)")
    what.add_argument("--lines", type=positive, default=500, metavar="N", help="encoders: most lines (500)")
    what.add_argument("--neighbours", type=positive, default=10, metavar="K", help="encoders: nearest neighbours (10)")
    add_threads(parser.add_argument_group("running"))


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.machine import describe, use_threads
    from ..datasets import calibration_source
    from ..runtime import load

    threads = use_threads(args.threads)
    console.say(f"zeroskip eval on {describe(threads)}")
    fast = load(args.model)
    if fast.kind == "encoder" and args.against is None:
        raise UsageError(f"{fast.name} is an encoder, which is measured against its dense model; pass --against MODEL.")
    text, name = calibration_source(args.text or "pydoc")
    console.say(f"{fast.name}: {fast.kind}, {fast.values} values; text: {name}")
    dense = None
    if args.against is not None:
        from .. import models

        dense = models.load(args.against)
        use_threads(threads)  # torch is there now
        if dense.kind != fast.kind:
            raise UsageError(f"--against {args.against} is a {dense.kind}, {fast.name} a {fast.kind}; compare alike.")
    measured = _encoder if fast.kind == "encoder" else _decoder
    result = {"model": fast.name, "text": name, "against": args.against, **measured(args, console, fast, dense, text)}
    console.emit(result)
    return 0


def _encoder(args: argparse.Namespace, console: Console, fast: CompiledModel, dense: Any, text: str) -> dict[str, Any]:
    from ..bench import quality
    from ..bench.rivals import TorchEncoder

    lines = [line for line in text.splitlines() if line.strip()][: args.lines]
    if len(lines) <= args.neighbours:
        raise UsageError(f"the text has {len(lines)} lines, more than --neighbours {args.neighbours} are needed.")
    with console.progress() as bars:
        ours = fast.embed(lines, progress=bars)
    found = quality.compare_embeddings(TorchEncoder(dense).embed(lines), ours, lines, k=args.neighbours)
    console.show(
        f"cosine to dense          {found.mean_cosine:.4f} (lowest {found.min_cosine:.4f}) over {found.texts} lines"
    )
    console.show(f"nearest neighbours kept  {found.neighbours_kept:.4f} of {found.k}")
    console.show(f"rank correlation         {found.rank_correlation:.4f} of all pairs' similarities")
    return {
        "cosine": found.mean_cosine,
        "min_cosine": found.min_cosine,
        "neighbours_kept": found.neighbours_kept,
        "k": found.k,
        "rank_correlation": found.rank_correlation,
        "lines": found.texts,
    }


def _decoder(args: argparse.Namespace, console: Console, fast: CompiledModel, dense: Any, text: str) -> dict[str, Any]:
    import numpy as np

    from ..bench import quality
    from ..bench.rivals import TorchDecoder

    ids = fast.text.encode([text], special=False, cut=False)[0]
    cut = quality.windows(ids, length=args.window, count=args.windows)

    def ours(tokens: Any) -> Any:
        return fast.logits([tokens.astype(np.int32)])

    with console.progress() as bars:
        if dense is None:
            value = quality.perplexity(ours, cut, progress=bars)
            console.show(f"perplexity {value:.3f} over {len(cut)} windows of {args.window} tokens")
            return {"perplexity": value, "windows": len(cut), "window": args.window}
        reference = TorchDecoder(dense)
        found = quality.compare_logits(reference.logits, ours, cut, progress=bars)
    console.show(f"perplexity       {found.perplexity_sparse:.3f} (dense {found.perplexity_dense:.3f})")
    console.show(f"KL divergence    {found.kl:.4f} nats a token, from dense")
    console.show(f"top-1 agreement  {found.top1_agreement:.4f} of {found.predictions} predictions")
    return {
        "perplexity": found.perplexity_sparse,
        "perplexity_dense": found.perplexity_dense,
        "kl": found.kl,
        "top1_agreement": found.top1_agreement,
        "windows": found.windows,
        "window": args.window,
    }
