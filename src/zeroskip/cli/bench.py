"""Time kernels against each other on this machine. Every result is checked against float64 before it is timed."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError
from ._options import (
    DTYPES,
    Help,
    add_output_options,
    add_seed,
    add_threads,
    fractions,
    names,
    not_negative,
    pattern,
    positives,
    shapes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..bench.spmm import Row, SpmmSettings

EPILOG = """\
examples:
  zeroskip bench spmm                                        the defaults: 4096x4096, 50 to 98 %, N = 1, 32, 128
  zeroskip bench spmm --shape 2048x2048,4096x4096 --sparsity 0.5,0.8,0.9,0.95,0.98 --n 8,16,32,128 --threads 2
  zeroskip bench spmm --shape 4096x4096 --sparsity 0.9 --n 128 --kernels 'spmm_csr_*' --peers all --out rows.jsonl
"""

NESTED = True

SPMM_EPILOG = """\
examples:
  zeroskip bench spmm --shape 4096x4096 --sparsity 0.5,0.9 --n 1,32,128
  zeroskip bench spmm --shape 2048x2048,4096x4096 --sparsity 0.5,0.8,0.9,0.95,0.98 --n 8,16,32,128 --threads 2
  zeroskip bench spmm --pattern 2:4 --n 1,128 --kernels all --peers torch,onnxruntime --json
  zeroskip bench spmm --kernels 'spmm_csr_*' --peers all --out rows.jsonl

N = 1 goes round copies of the weights that exceed the last-level cache (cold); larger N keeps them warm. Ratios
are to the fastest dense product of torch, NumPy and ONNX Runtime in the same run, each tried in both layouts.
docs/benchmark.md describes the method and the fields of a row.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what to time", dest="op", metavar="OP", required=True)
    spmm = kinds.add_parser(
        "spmm",
        help="C = A @ B, A sparse (N = 1 is the matrix-vector product)",
        description="Time C[M, N] = A[M, K] @ B[K, N] with random sparse A, for every kernel that fits.",
        epilog=SPMM_EPILOG,
        formatter_class=Help,
    )
    problem = spmm.add_argument_group("the problem (lists are separated by commas)")
    problem.add_argument(
        "--shape", type=shapes, default=[(4096, 4096)], metavar="MxK,...", help="shapes of A (4096x4096)"
    )
    problem.add_argument("--sparsity", type=fractions, metavar="S,...", help="shares of zeros (0.5,0.8,0.9,0.95,0.98)")
    problem.add_argument("--n", type=positives, default=[1, 32, 128], metavar="N,...", help="columns of B (1,32,128)")
    problem.add_argument("--pattern", type=pattern, default="unstructured", help="unstructured, 2:4, block:16x1, ...")
    problem.add_argument("--dtype", choices=DTYPES, default="float32", help="value type of A (float32)")
    add_seed(problem)
    who = spmm.add_argument_group("who takes part")
    who.add_argument("--kernels", type=names, default=["auto"], help="auto (ours of the best ISA), all, names or globs")
    who.add_argument(
        "--peers", type=names, default=["auto"], help="auto (dense rivals), all, none, or torch,scipy,mkl,..."
    )
    how = spmm.add_argument_group("how")
    add_threads(how)
    how.add_argument("--budget", type=not_negative, default=3.0, metavar="S", help="seconds of timing per problem (3)")
    how.add_argument(
        "--out", type=Path, metavar="FILE", help="write rows to FILE as JSON lines, each as soon as it is there"
    )
    add_output_options(spmm)


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.machine import describe, use_threads
    from ..bench.spmm import bench_spmm

    settings = _settings(args)
    console.say(f"zeroskip bench spmm on {describe(use_threads(args.threads))}, seed {settings.seed}, {settings.dtype}")
    rows: list[Row] = []
    with console.progress() as bars:
        measured = bench_spmm(settings, progress=bars)
        if args.out is None:
            rows = list(measured)
        else:
            with open(args.out, "w", encoding="utf-8") as file:
                for row in measured:
                    rows.append(row)
                    file.write(json.dumps(row, allow_nan=False) + "\n")
                    file.flush()
    _show(rows, console)
    console.emit(rows)
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _settings(args: argparse.Namespace) -> SpmmSettings:
    from ..bench.spmm import SpmmSettings
    from ..sparsify import Pattern

    implied = Pattern.parse(args.pattern).min_sparsity
    sparsities: Sequence[float] = args.sparsity or ([implied] if implied else SpmmSettings().sparsities)
    if implied and any(abs(sparsity - implied) > 1e-9 for sparsity in sparsities):
        raise UsageError(
            f"--sparsity does not go with --pattern {args.pattern}, which is {implied:g} sparse; leave it out."
        )
    return SpmmSettings(
        shapes=args.shape,
        sparsities=sparsities,
        ns=args.n,
        dtype=args.dtype,
        pattern=args.pattern,
        kernels=args.kernels,
        peers=args.peers,
        threads=args.threads,
        seed=args.seed,
        budget_s=args.budget,
    )


def _show(rows: list[Row], console: Console) -> None:
    from ..bench.tables import spmm_groups, spmm_summary

    for title, table in spmm_groups(rows):
        console.show(f"\n{title}")
        console.show(table)
    console.show("\n" + spmm_summary(rows))
    failed: list[Any] = [row for row in rows if row["status"] == "failed"]
    for row in failed:
        console.say(f"FAILED {row['kernel']} at n = {row['n']}, sparsity {row['sparsity']}: {row['reason']}")
