"""Time kernels, encoders or language models against their rivals here. Every result is checked before it is timed."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _bench_embed, _bench_model, _bench_report, _bench_run, _bench_sddmm, _rows
from ._console import Console, UsageError
from ._options import (
    DTYPES,
    INTEGERS,
    Help,
    add_output_options,
    add_plugin,
    add_seed,
    fractions,
    names,
    pattern,
    positives,
    shapes,
)

if TYPE_CHECKING:
    from ..bench.rows import Row
    from ..bench.spmm import SpmmSettings

EPILOG = """\
examples:
  zeroskip bench spmm                                        the defaults: 4096x4096, 50 to 98 %, N = 1, 32, 128
  zeroskip bench spmm --shape 2048x2048,4096x4096 --sparsity 0.5,0.8,0.9,0.95,0.98 --n 8,16,32,128 --threads 2
  zeroskip bench spmm --shape 4096x4096 --sparsity 0.9 --n 128 --kernels 'spmm_csr_*' --peers all --out rows.jsonl
  zeroskip bench sddmm --mask 'bigbird/1024/*' --depth 64,128 products at the entries of a mask or a graph
  zeroskip bench report zeroskip-bench-survey-cpu            its page and pictures
  zeroskip bench compare first second                        two runs of a suite: how well they repeat
  zeroskip bench summary rows.jsonl more.jsonl               means, and what the choice cost, over several runs
  zeroskip bench run survey-cpu --budget 10m                 a suite of real matrices and every rival, resumable
  zeroskip bench embed minilm-60-fast                        a compiled encoder against torch, ONNX Runtime, OpenVINO
  zeroskip bench model smollm2                               a language model: sparse, quantised, smaller, everywhere
"""

NESTED = True

SPMM_EPILOG = """\
examples:
  zeroskip bench spmm --shape 4096x4096 --sparsity 0.5,0.9 --n 1,32,128
  zeroskip bench spmm --shape 2048x2048,4096x4096 --sparsity 0.5,0.8,0.9,0.95,0.98 --n 8,16,32,128 --threads 2
  zeroskip bench spmm --pattern 2:4 --n 1,128 --kernels all --peers torch,onnxruntime --json
  zeroskip bench spmm --pattern 8:16 --dtype int8 --n 1 --peers torch,onnxruntime
  zeroskip bench spmm --kernels 'spmm_csr_*' --peers all --out rows.jsonl
  zeroskip bench spmm --dlmc 'transformer/*' --n 128 --peers all --out rows.jsonl
  zeroskip bench spmm --matrix 'layers/*.smtx,graph.mtx' --n 32 --peers scipy,mkl

N = 1 goes round copies of the weights that exceed the last-level cache (cold); larger N keeps them warm. Ratios
are to the fastest dense product of torch, NumPy, ONNX Runtime, OpenVINO and LiteRT here, in float32 whatever the
value type of A, each tried in both layouts. More than one matrix ends with the geometric means, and with how well the
choice did. docs/benchmark.md describes the method and the fields of a row.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(title="what to time", dest="op", metavar="OP", required=True)
    spmm = kinds.add_parser(
        "spmm",
        help="C = A @ B, A sparse (N = 1 is the matrix-vector product)",
        description="Time C[M, N] = A[M, K] @ B[K, N], A sparse, random or from files, for every kernel that fits.",
        epilog=SPMM_EPILOG,
        formatter_class=Help,
    )
    problem = spmm.add_argument_group("the problem (lists are separated by commas)")
    problem.add_argument("--shape", type=shapes, metavar="MxK,...", help="shapes of A (4096x4096)")
    problem.add_argument("--sparsity", type=fractions, metavar="S,...", help="shares of zeros (0.5,0.8,0.9,0.95,0.98)")
    problem.add_argument("--n", type=positives, default=[1, 32, 128], metavar="N,...", help="columns of B (1,32,128)")
    problem.add_argument("--pattern", type=pattern, help="unstructured (the default), 2:4, block:16x1, ...")
    problem.add_argument(
        "--matrix", type=names, metavar="FILE,...", help="files or globs: .smtx patterns and MatrixMarket, instead"
    )
    problem.add_argument(
        "--dlmc",
        nargs="?",
        const="*",
        metavar="GLOB",
        help="instead: the sample of the Deep Learning Matrix Collection in ZEROSKIP_DATA_DIR, or a part of it such as "
        "'*/magnitude_pruning/0.9/*'",
    )
    problem.add_argument(
        "--dtype", choices=(*DTYPES, *INTEGERS), default="float32", help="value type of A (float32); int8, int4: codes"
    )
    problem.add_argument(
        "--group",
        type=int,
        choices=(0, 32, 64, 128),
        default=0,
        help="columns that share a scale, for int8 and int4 (0: the whole row)",
    )
    add_seed(problem)
    who = spmm.add_argument_group("who takes part")
    who.add_argument(
        "--kernels",
        type=names,
        default=["auto"],
        help="auto (the newest of ours, and what `plan` takes), all, names or globs",
    )
    who.add_argument(
        "--peers", type=names, default=["auto"], help="auto (dense rivals), all, none, or torch,scipy,mkl,..."
    )
    add_plugin(who)
    _rows.add_how(spmm, 3.0)
    add_output_options(spmm)
    _bench_sddmm.add_parser(kinds)
    summary = kinds.add_parser(
        "summary",
        help="what the rows of several runs say together",
        description="Print the geometric means, and how well the choice did, over the rows of files that --out wrote.",
        formatter_class=Help,
    )
    summary.add_argument("files", nargs="+", type=Path, metavar="FILE", help="rows, as JSON lines")
    add_output_options(summary)
    compare = kinds.add_parser(
        "compare",
        help="how two runs of one suite differ",
        description="Compare the ratios of two runs, cell by cell: what repeating, or a change of code, did to them.",
        formatter_class=Help,
    )
    compare.add_argument("first", type=Path, metavar="FIRST", help="rows, as JSON lines, or a folder of `bench run`")
    compare.add_argument("second", type=Path, metavar="SECOND", help="the same of the other run")
    add_output_options(compare)
    _bench_embed.add_parser(kinds)
    _bench_model.add_parser(kinds)
    _bench_run.add_parser(kinds)
    _bench_report.add_parser(kinds)


def run(args: argparse.Namespace, console: Console) -> int:
    commands = {
        "summary": _summary,
        "compare": _compare,
        "embed": _bench_embed.run,
        "model": _bench_model.run,
        "run": _bench_run.run,
        "report": _bench_report.run,
        "sddmm": _bench_sddmm.run,
        "spmm": _spmm,
    }
    return commands[args.op](args, console)


def _summary(args: argparse.Namespace, console: Console) -> int:
    from ..bench.schema import read_rows
    from ..bench.summary import summarise
    from ..bench.tables import row_ratios, spmm_choice

    summary = summarise(*map(read_rows, args.files))
    console.show(row_ratios(summary))
    for sentence in spmm_choice(summary):
        console.show(f"\n{sentence}")
    console.emit(summary)
    return 0


def _compare(args: argparse.Namespace, console: Console) -> int:
    from ..bench.compare import compare
    from ..bench.schema import read_rows
    from ..bench.tables import table

    paths = [path / "rows.jsonl" if path.is_dir() else path for path in (args.first, args.second)]
    found = compare(*(read_rows(path, where="bench compare") for path in paths))
    if not found["pairs"]:
        raise UsageError(
            f"bench compare: {args.first} and {args.second} have no product in common; pass two runs of one suite."
        )
    if found["moved"]:
        shown = found["moved"][:20]
        times = [{name: f"{one[name]:.2f}x" for name in ("first", "second")} for one in shown]
        lines = [{"cell": one["cell"], "kernel": one["kernel"], **both} for one, both in zip(shown, times, strict=True)]
        console.show(table(lines))
        console.show(f"({len(found['moved'])} moved by more than a fifth)\n")
    console.show(
        f"{found['pairs']} ratios to the best dense product in both: they differ by {found['median'] * 100:.1f} % "
        f"(median), {found['p90'] * 100:.1f} % (nine of ten); the second's are {found['drift']:.3f} times the first's."
    )
    if found["tenths"] is not None:
        console.show(f"  of tenth percentiles, which load moves less: {found['tenths'] * 100:.1f} % (median)")
    if found["only_first"] or found["only_second"]:
        console.show(f"{found['only_first']} are in the first alone, {found['only_second']} in the second.")
    console.emit(found)
    return 0


def _spmm(args: argparse.Namespace, console: Console) -> int:
    from ..bench.machine import describe, use_threads
    from ..bench.spmm import bench_spmm
    from ..bench.summary import summarise

    settings = _settings(args)
    console.say(f"zeroskip bench spmm on {describe(use_threads(args.threads))}, seed {settings.seed}, {settings.dtype}")
    with console.progress() as bars:
        rows = _rows.collect(bench_spmm(settings, progress=bars), args.out)
    summary = summarise(rows)
    _show(rows, summary, console)
    console.emit({"rows": rows, "summary": summary})
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _settings(args: argparse.Namespace) -> SpmmSettings:
    from ..bench.spmm import SpmmSettings
    from ..kernels import _plugins

    if args.group and args.dtype not in INTEGERS:
        raise UsageError(f"--group is for --dtype int8 and int4, {args.dtype} values have no scales; leave it out.")
    given = {name: value for name in ("shape", "sparsity", "pattern") if (value := getattr(args, name)) is not None}
    return SpmmSettings(
        **_stored(args, given) if args.matrix or args.dlmc else _rows.random_problems(args),
        ns=args.n,
        dtype=args.dtype,
        group=args.group,
        kernels=args.kernels,
        peers=[*args.peers, *_plugins.use(args.plugin)],
        threads=args.threads,
        seed=args.seed,
        budget_s=args.budget,
        rounds=args.rounds,
    )


def _stored(args: argparse.Namespace, given: dict[str, Any]) -> dict[str, Any]:
    """The files that were asked for, which bring their own shapes."""
    from ..bench import stored

    if given:
        raise UsageError(f"--{next(iter(given))} does not go with --matrix and --dlmc, which have it; leave it out.")
    found = stored.files(args.matrix) if args.matrix else []
    return {"matrices": found + (stored.dlmc_sample(args.dlmc) if args.dlmc else [])}


def _show(rows: list[Row], summary: dict[str, Any], console: Console) -> None:
    from ..bench.tables import row_groups, row_ratios, spmm_choice, spmm_files, spmm_summary

    for title, table in row_groups([row for row in rows if not row["matrix"]]):
        console.show(f"\n{title}")
        console.show(table)
    if any(not row["matrix"] for row in rows):
        console.show("\n" + spmm_summary(rows))
    if any(row["matrix"] for row in rows):
        console.show("\n" + spmm_files(rows))
    if len({(row["matrix"], row["m"], row["k"]) for row in rows}) > 1:
        console.show("\ntime of each rival over ours, geometric means")
        console.show(row_ratios(summary))
    for sentence in spmm_choice(summary):
        console.show("\n" + sentence)
    _rows.say_failed(rows, console)
