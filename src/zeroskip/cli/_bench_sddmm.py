"""`zeroskip bench sddmm`: products at the entries of a mask or a graph, against every rival."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from . import _rows
from ._console import Console, UsageError
from ._options import (
    Help,
    add_output_options,
    add_seed,
    fractions,
    names,
    pattern,
    positives,
    shapes,
)

if TYPE_CHECKING:
    from ..bench.operands import Source
    from ..datasets import Entry

EPILOG = """\
examples:
  zeroskip bench sddmm                                       BigBird masks of 1024, 80 to 98 %, at depth 64 and 128
  zeroskip bench sddmm --mask 'bigbird/4096/0.9,window/2048/*' --depth 64
  zeroskip bench sddmm --mask bigbird/1024/0.9 --dtype bfloat16
  zeroskip bench sddmm --matrix graph.mtx --depth 64 --peers torch --out rows.jsonl
  zeroskip bench sddmm --shape 4096x4096 --sparsity 0.9 --pattern block:64x64

S[M, K] = Q[M, depth] @ K[K, depth]^T at the entries of A[M, K], which is a mask, a file or random. Ratios are to
torch's dense product, of which the entries are picked. docs/benchmark.md describes the method and the fields of a row.
"""

MASKS = ("bigbird/1024/0.8", "bigbird/1024/0.9", "bigbird/1024/0.95", "bigbird/1024/0.98")


def add_parser(kinds: Any) -> None:
    sddmm = kinds.add_parser(
        "sddmm",
        help="S = Q @ K^T at the entries of a pattern",
        description="Time the product of two dense matrices at the entries of a mask, a graph or a random pattern.",
        epilog=EPILOG,
        formatter_class=Help,
    )
    problem = sddmm.add_argument_group("the pattern (lists are separated by commas)")
    problem.add_argument(
        "--mask",
        type=names,
        metavar="KIND/LENGTH/SPARSITY,...",
        help="attention masks, any length and sparsity, or globs over the 84 of the survey (bigbird/1024/0.8 to 0.98)",
    )
    problem.add_argument("--matrix", type=names, metavar="FILE,...", help="files or globs: .smtx and MatrixMarket")
    problem.add_argument("--shape", type=shapes, metavar="MxK,...", help="random patterns: shapes")
    problem.add_argument("--sparsity", type=fractions, metavar="S,...", help="of them, shares of zeros")
    problem.add_argument("--pattern", type=pattern, help="of them, unstructured (the default) or block:64x64, ...")
    problem.add_argument(
        "--depth", type=positives, default=[64, 128], metavar="N,...", help="columns of Q and K (64,128)"
    )
    problem.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of Q and K for our kernels; rivals take the same numbers in float32",
    )
    add_seed(problem)
    who = sddmm.add_argument_group("who takes part")
    who.add_argument("--kernels", type=names, default=["auto"], help="auto (the newest of ours), all, names or globs")
    who.add_argument("--peers", type=names, default=["all"], help="all, auto (the dense product), none, or torch,numpy")
    _rows.add_how(sddmm, 2.0)
    add_output_options(sddmm)


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.machine import describe, use_threads
    from ..bench.sddmm import SddmmSettings, bench_sddmm
    from ..bench.summary import summarise
    from ..bench.tables import row_groups, row_ratios

    settings = SddmmSettings(
        _sources(args),
        depths=args.depth,
        dtype=args.dtype,
        kernels=args.kernels,
        peers=args.peers,
        threads=args.threads,
        seed=args.seed,
        budget_s=args.budget,
        rounds=args.rounds,
    )
    machine = describe(use_threads(args.threads))
    console.say(f"zeroskip bench sddmm on {machine}, seed {settings.seed}, {settings.dtype}")
    with console.progress() as bars:
        rows = _rows.collect(bench_sddmm(settings, progress=bars), args.out)
    for title, table in row_groups(rows):
        console.show(f"\n{title}")
        console.show(table)
    summary = summarise(rows)
    if len(settings.sources) > 1:
        console.show("\ntime of each rival over ours, geometric means")
        console.show(row_ratios(summary))
    _rows.say_failed(rows, console)
    console.emit({"rows": rows, "summary": summary})
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _sources(args: argparse.Namespace) -> list[Source]:
    """Masks, files or random patterns: one of the three."""
    from ..bench.operands import Problem
    from ..bench.stored import EntryProblem, StoredProblem, files

    ways = {"mask": args.mask, "matrix": args.matrix, "shape": args.shape or args.sparsity or args.pattern}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise UsageError(f"--{given[0]} does not go with --{given[1]}, each brings its own pattern; leave one out.")
    if args.matrix:
        return [StoredProblem(path, label, "float32", args.seed) for path, label in files(args.matrix)]
    if "shape" in given:
        asked = _rows.random_problems(args)
        return [
            Problem(shape, sparsity, asked["pattern"], "float32", args.seed)
            for shape in asked["shapes"]
            for sparsity in asked["sparsities"]
        ]
    return [EntryProblem(entry, "float32", args.seed) for entry in _masks(args.mask or MASKS)]


def _masks(wanted: Sequence[str]) -> list[Entry]:
    """The entries of names and globs.

    Raises:
        UsageError: If a name has another form, or a glob fits none.
    """
    from .._errors import InvalidArgument
    from ..datasets.masks import Masks

    masks, found = Masks(), []
    for name in wanted:
        if any(sign in name for sign in "*?["):
            hits = [entry for entry in masks.entries() if fnmatchcase(entry.name, name)]
            if not hits:
                raise UsageError(f"--mask {name} fits none of the 84 masks; `zeroskip data show masks` lists them.")
            found += hits
            continue
        try:
            kind, length, sparsity = name.split("/")
            found.append(masks.entry(kind, int(length), float(sparsity)))
        except InvalidArgument as error:
            raise UsageError(f"--mask {name}: {error}") from None
        except ValueError:
            raise UsageError(f"--mask {name} is no mask; write KIND/LENGTH/SPARSITY, as bigbird/1024/0.9.") from None
    return found
