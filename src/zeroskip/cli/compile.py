"""Measure every kernel on a model's own weights on this machine, pack what wins, and save the result."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from ._console import Console, UsageError
from ._options import ACTIVATIONS, DTYPES, INTEGERS, add_threads, names, not_negative, open_fraction, positives

GROUPS = (0, 32, 64, 128)

EPILOG = """\
examples:
  zeroskip compile minilm-60 -o minilm-60-fast
  zeroskip compile smollm2-50 -o smollm2-50-fast --values bfloat16
  zeroskip compile smollm2-8of16 -o smollm2-8of16-int8 --values int8
  zeroskip compile minilm -o minilm-98 --keep-cosine 0.98 --calibration my-texts.txt
  zeroskip compile ./my-model -o fast --optimize memory --batch-sizes 1,64 --threads 4

MODEL is what `zeroskip prune` wrote, or any model it takes. Dense kernels are always among the candidates: a layer
where sparsity does not pay runs dense, and the plan says so. --optimize speed packs a layer for each batch size;
memory keeps one packing; balanced (the default) packs again only where that gains more than 10 %. Codes of 8 and 4
bits are fastest where weights were pruned to N:M with M of 2, 4, 8 or 16 (`zeroskip prune --pattern 8:16`); what
rounding costs, `zeroskip eval --against` says. What was measured here for layers like these is taken from the cache
folder (`zeroskip doctor` shows it) unless --fresh is given.

--keep-cosine searches for the fastest encoder whose embeddings keep that mean cosine to those of MODEL: every layer is
pruned and rounded as far as pays, a few such models are really made and compared on lines held back from the text,
and the report says what was chosen and why. Where nothing faster is above the floor, MODEL is compiled as it is. A
search that was stopped goes on where it was.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="MODEL", help="what to compile")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="COMPILED", help="folder to write")
    parser.add_argument("--overwrite", action="store_true", help="replace a compiled model that is there already")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--values",
        choices=(*DTYPES, *INTEGERS),
        help="type of stored weights (float32 for encoders, float16 for decoders)",
    )
    how.add_argument(
        "--group",
        type=int,
        choices=GROUPS,
        help="int8 and int4: columns that share a scale, 0 for a whole row (0 for int8, 32 for int4)",
    )
    how.add_argument(
        "--activations",
        choices=ACTIVATIONS,
        help="what kernels may round x to: int8 for weights of int8 and int4 (there the default), bfloat16 for "
        "bfloat16, int16 for any (fixed point, the fastest sparse kernels), float32: as it is (the default)",
    )
    how.add_argument(
        "--batch-sizes",
        type=positives,
        metavar="N,...",
        help="tokens at a time to measure for (1,4,16,256; encoders 4,16,256)",
    )
    how.add_argument("--optimize", choices=("balanced", "speed", "memory"), default="balanced", help="what to aim at")
    how.add_argument("--kernels", type=names, metavar="NAME,...", help="sparse kernels to choose from (all)")
    how.add_argument("--budget", type=not_negative, metavar="S", help="seconds of measuring (40)")
    how.add_argument(
        "--fresh", action="store_true", help="measure anew, also layers like those of an earlier compilation"
    )
    add_threads(how)
    floor = parser.add_argument_group("quality floor (encoders)")
    floor.add_argument(
        "--keep-cosine",
        type=open_fraction,
        metavar="C",
        help="give the fastest model whose embeddings keep a mean cosine of C to those of MODEL, such as 0.98",
    )
    floor.add_argument(
        "--calibration", metavar="FILE|NAME", help="text to search with: a file, pydoc or wikitext2 (pydoc)"
    )
    floor.add_argument("--search-minutes", type=not_negative, metavar="MIN", help="time for the search (15)")


def run(args: argparse.Namespace, console: Console) -> int:
    check_out(args.out, overwrite=args.overwrite)
    from ..bench.machine import describe, use_threads
    from ..runtime import compile

    console.say(f"zeroskip compile on {describe(use_threads(args.threads))}")
    narrow = args.activations == "int16" or (args.values == "bfloat16" and args.activations != "int8")
    alone = args.values not in INTEGERS and args.keep_cosine is None  # a search has rungs of codes by itself
    if alone and (args.group is not None or (args.activations is not None and not narrow)):
        raise UsageError(
            "--group and --activations are for weights in codes; pass --values int8 or int4 with them "
            "(or --values bfloat16 --activations bfloat16, or --activations int16)."
        )
    given = {"values": args.values, "batch_sizes": args.batch_sizes, "kernels": args.kernels, "budget_s": args.budget}
    given |= {"group": args.group, "activations": args.activations}
    if args.keep_cosine is None and (args.calibration is not None or args.search_minutes is not None):
        raise UsageError("--calibration and --search-minutes are for --keep-cosine; pass it with them.")
    minutes = args.search_minutes
    given |= {"keep_cosine": args.keep_cosine, "calibration": args.calibration}
    given |= {"search_s": None if minutes is None else 60 * minutes}
    start = time.perf_counter()
    with console.progress("compile") as bars:
        fast = compile(
            args.model,
            optimize=args.optimize,
            threads=args.threads,
            cache=not args.fresh,
            progress=bars,
            **{key: value for key, value in given.items() if value is not None},
        )
    spent = time.perf_counter() - start
    fast.save(args.out, overwrite=args.overwrite)
    console.show(fast.report())
    console.show(f"\ncompiled in {spent:.1f} s, written to {args.out}")
    document = {"out": str(args.out), "compile_s": spent, "nbytes": fast.nbytes, "plan": fast.report(json=True)}
    floor = getattr(fast, "floor", None)  # a model of torch modules has none
    console.emit(document | ({} if floor is None else {"floor": floor.as_json()}))
    return 0


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that could not be replaced, before the long work and not after it."""
    from ..io import is_saved_model

    if out.exists() and not out.is_dir():
        raise UsageError(f"-o {out} is a file; choose a folder.")
    if out.is_dir() and any(out.iterdir()):
        if not is_saved_model(out):
            raise UsageError(f"-o {out} is not empty and holds no compiled model; choose another folder.")
        if not overwrite:
            raise UsageError(f"-o {out} holds a compiled model; pass --overwrite to replace it.")
