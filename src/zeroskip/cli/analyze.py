"""Before anything is pruned: the sparsity from which each format and value type beats dense on this processor."""

from __future__ import annotations

import argparse
from pathlib import Path

from ._console import Console, UsageError
from ._options import add_seed, add_threads, fractions, names, not_negative, positives, shapes

EPILOG = """\
examples:
  zeroskip analyze minilm                                    every layer shape of a model
  zeroskip analyze --shape 4096x4096,4096x14336 --n 1,128
  zeroskip analyze --shape 4096x4096 --values float32,int8 --formats csr,bitmask --html analysis.html
  zeroskip analyze --shape 768x3072 --formats nm:8,nm:16,bsr:4x4,bsr:16x1 --budget 120 --json > analysis.json

MODEL is anything that `zeroskip prune` takes; without MODEL and --shape it is 4096x4096. Dense is the fastest of our
dense kernels, NumPy and torch (where installed). Every kernel is checked against float64 before it is timed. One shape
takes less than a minute; what --budget leaves out is said. docs/analyze.md has the method.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", nargs="?", help="a model whose linear layers are looked at")
    what = parser.add_argument_group("what (lists are separated by commas)")
    what.add_argument("--shape", type=shapes, metavar="MxK,...", help="shapes of weights instead of a model")
    what.add_argument("--n", type=positives, metavar="N,...", help="vectors at a time (1,8,32,128)")
    what.add_argument("--sparsity", type=fractions, metavar="S,...", help="sparsities that may be measured")
    what.add_argument("--values", type=names, metavar="TYPE,...", help="float32,bfloat16,float16,int8,int4 (all)")
    what.add_argument(
        "--formats", type=names, metavar="F,...", help="csr,bitmask,nm,bsr (all); nm:M keeps N of M, bsr:RxC"
    )
    add_seed(what)
    how = parser.add_argument_group("how")
    add_threads(how)
    how.add_argument("--budget", type=not_negative, metavar="SECONDS", help="time to measure, in all (48 a shape)")
    how.add_argument("--html", type=Path, metavar="FILE", help="write a page with the picture and all tables")
    how.add_argument("--png", type=Path, metavar="FILE", help="write the picture")


def run(args: argparse.Namespace, console: Console) -> int:
    if args.model is not None and args.shape is not None:
        raise UsageError("--shape does not go with MODEL, which has its shapes; leave one out.")
    from ..bench.analysis import analyze
    from ..bench.analysis.tables import legend
    from ..bench.machine import describe, use_threads

    if args.html or args.png:
        _check_files(args)
    console.say(f"zeroskip analyze on {describe(use_threads(args.threads))}, seed {args.seed}")
    given = {
        "shapes": args.shape,
        "n": args.n,
        "sparsities": args.sparsity,
        "values": args.values,
        "formats": args.formats,
        "budget_s": args.budget,
    }
    with console.progress("analyze") as bars:
        found = analyze(
            args.model,
            threads=args.threads,
            seed=args.seed,
            progress=bars,
            **{key: value for key, value in given.items() if value is not None},
        )
    console.show(found.table())
    if len(found.doc["shapes"]) == 1:
        console.show("\n" + found.formats_table())
    for line in ["", *legend(found.doc)]:
        console.show(line)
    for line in found.failures:
        console.say(f"FAILED {line}")
    if args.html:
        found.save_html(args.html)
    if args.png:
        found.save_png(args.png)
    console.emit(found.as_json())
    return 1 if found.failures else 0


def _check_files(args: argparse.Namespace) -> None:
    """Refuse what cannot be written, before the long work and not after it."""
    from ..bench.analysis.figures import check_matplotlib

    check_matplotlib()
    for path in (args.html, args.png):
        if path is not None and (path.is_dir() or not path.resolve().parent.is_dir()):
            raise UsageError(f"{path} cannot be written: choose a file in a folder that is there.")
