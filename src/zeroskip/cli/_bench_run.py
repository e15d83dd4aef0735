"""`zeroskip bench run`: a suite, within a time budget, resumable."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError
from ._options import Help, add_output_options, add_plugin, add_seed, add_threads

if TYPE_CHECKING:
    from ..bench.run import Outcome

EPILOG = """\
examples:
  zeroskip bench run --list                                   the suites that come with zeroskip
  zeroskip bench run smoke                                    half a minute
  zeroskip bench run survey-cpu --budget 10m                  as much of it as ten minutes allow, some of everything
  zeroskip bench run survey-cpu --budget 1h                   goes on from there: rows that are there stay
  zeroskip bench run mine.toml -o results                     a suite of your own
  zeroskip bench run dlmc --ray                               over a Ray cluster, one task a matrix

Rows go to FOLDER/rows.jsonl as soon as they are measured. A run that was stopped goes on when the same command is given
again. docs/benchmark.md describes suites and rows.
"""


def add_parser(kinds: Any) -> None:
    run = kinds.add_parser(
        "run",
        help="a suite: many matrices, every rival, resumable",
        description="Measure a suite: what is built in, or a TOML file.",
        epilog=EPILOG,
        formatter_class=Help,
    )
    run.add_argument("suite", nargs="?", metavar="SUITE", help="a name of --list, or a file.toml")
    run.add_argument("--list", action="store_true", help="list the suites that are built in")
    run.add_argument("--budget", type=duration, metavar="TIME", help="begin nothing new after this long: 90s, 10m, 2h")
    run.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where rows go (zeroskip-bench-SUITE)")
    run.add_argument(
        "--ray", action="store_true", help="spread matrices over a Ray cluster, a task each (pip install ray)"
    )
    add_plugin(run)
    add_threads(run)
    add_seed(run)
    add_output_options(run)


def duration(text: str) -> float:
    """Seconds of `90`, `90s`, `10m` or `1.5h`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if not found or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write 90s, 10m or 2h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench import suites

    if args.list:
        return _list(console)
    if args.suite is None:
        raise UsageError("bench run: no suite is named; choose one of `zeroskip bench run --list`, or a file.toml.")
    from ..bench.machine import describe, use_threads
    from ..bench.run import RunSettings
    from ..bench.run import read as read_rows
    from ..bench.run import run as run_suite
    from ..kernels import _plugins

    # The workers of oneMKL and AOCL spin for 200 ms after a call, which every pause waits for.
    os.environ.setdefault("KMP_BLOCKTIME", "20")
    _plugins.use(args.plugin)
    suite = suites.load(args.suite)
    out = args.out or Path(f"zeroskip-bench-{suite.name}")
    console.say(f"zeroskip bench run {suite.name} on {describe(use_threads(args.threads))}: {suite.title}")
    settings = RunSettings(suite, out, args.budget, args.threads, args.seed, args.ray)
    with console.progress() as bars:
        outcome = run_suite(settings, progress=bars, say=console.say)
    rows = read_rows(out)
    _tell(outcome, rows, out, args.suite, console)
    console.emit({"folder": str(out), "cells": outcome.total, "measured": outcome.done, "kept": outcome.kept})
    return 1 if any(row["status"] == "failed" for row in rows) else 0


def _list(console: Console) -> int:
    from ..bench import suites

    found = suites.built_in()
    for suite in found:
        console.show(f"{suite.name:12}  {suite.title}")
    console.emit([suite.as_json() for suite in found])
    return 0


def _tell(outcome: Outcome, rows: list[dict[str, Any]], out: Path, suite: str, console: Console) -> None:
    from ..bench.summary import summarise
    from ..bench.tables import row_ratios

    for op in sorted({row["op"] for row in rows}):
        own = [row for row in rows if row["op"] == op]
        if not any(row["role"] == "candidate" for row in own):
            continue  # rivals alone, on a device for which we have no kernel
        console.show(f"\n{op}: time of each rival over ours, geometric means over matrices")
        console.show(row_ratios(summarise(own)))
    for row in rows:
        if row["status"] == "failed":
            console.say(f"FAILED {row['kernel']} on {row['dataset']} {row['matrix']}, n = {row['n']}: {row['reason']}")
    reached = outcome.done + outcome.kept
    console.show(
        f"\n{reached} of {outcome.total} cells (a matrix at one n) are measured, {outcome.done} of them now, "
        f"in {outcome.seconds:.0f} s; rows: {out / 'rows.jsonl'}"
    )
    if outcome.left_out:
        console.show(f"{outcome.left_out} were left out, as said above.")
    if missing := outcome.total - reached - outcome.left_out:
        console.show(f"{missing} were not reached: the same command goes on, with another --budget.")
    if rows:
        _report(rows, out, suite, console)


def _report(rows: list[dict[str, Any]], out: Path, suite: str, console: Console) -> None:
    """The page; a run without matplotlib keeps its rows and says what is missing."""
    from .._errors import MissingDependency
    from ..bench.report import write
    from ..bench.webpage import command_line

    try:
        written = write(rows, out, command=command_line(["bench", "run", suite]))
    except MissingDependency as error:
        console.say(f"no page: {error}")
        return
    console.show(f"the page: {written[0]}, and {len(written) - 1} pictures")
