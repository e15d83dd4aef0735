"""Compare compiled sentence encoders with the dense model in other engines: speed, memory, start-up, quality."""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError
from ._options import Help, add_output_options, duration, names, positive, positives

if TYPE_CHECKING:
    from ..bench.embed.settings import EmbedSettings

EPILOG = """\
examples:
  zeroskip bench embed minilm-60-fast                             ZEROSKIP_DATA_DIR holds WikiText-2
  zeroskip bench embed minilm-fast minilm-60-fast minilm-60-int8 --dense minilm -o compared
  zeroskip bench embed minilm-60-fast --text my-lines.txt --batch 1,32,mixed --threads 1,2
  zeroskip bench embed minilm-60-fast --engines zeroskip,torch,onnxruntime --quick
  zeroskip bench embed minilm-60-fast --deepsparse-python deepsparse-venv/bin/python -o compared

Engines run in processes of their own and take turns, while the others sleep; figures are medians over rounds, ratios to
ONNX Runtime in float32 are taken inside each round. Every engine is checked before it is timed, and runs in the fastest
way that a trial finds. What is missing is listed with the reason. With -o FOLDER a run that was interrupted goes on
where it was, and the folder gets report.html and rows.jsonl. docs/bench-embed.md says how everything is measured.
"""


def add_parser(kinds: Any) -> None:
    """`bench embed` among the kinds of `bench`."""
    parser = kinds.add_parser(
        "embed",
        help="sentence encoders against torch, ONNX Runtime, OpenVINO and DeepSparse",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=Help,
    )
    parser.add_argument("models", nargs="*", type=Path, metavar="MODEL", help="folders that `zeroskip compile` wrote")
    what = parser.add_argument_group("what is compared")
    what.add_argument("--dense", metavar="MODEL", help="the dense model (the name that MODEL has, if it is one)")
    engines = "some of zeroskip, torch, onnxruntime, onnxruntime-int8, openvino, openvino-int8, deepsparse (all)"
    what.add_argument("--engines", type=names, metavar="NAME,...", help=engines)
    what.add_argument("--deepsparse-python", metavar="PATH", help="python of an environment with deepsparse 1.8")
    text = parser.add_argument_group("on what")
    text.add_argument("--text", default="wikitext2", metavar="FILE|NAME", help="one text a line, or wikitext2 (that)")
    text.add_argument("--lines", type=positive, metavar="N", help="the first N of them (1000)")
    text.add_argument("--batch", type=names, metavar="N,...", help="lines at a time; mixed: all (1,8,32,128,mixed)")
    text.add_argument("--tokens", type=positive, default=20, metavar="N", help="length of the single sentence (20)")
    how = parser.add_argument_group("how")
    how.add_argument("--threads", type=positives, metavar="N,...", help="one or more numbers of threads (all cores)")
    how.add_argument("--rounds", type=positive, metavar="N", help="turns of each engine (5)")
    how.add_argument("--budget", type=duration, metavar="TIME", help="begin no round after 90s, 10m, ... (none)")
    how.add_argument("--limit", type=duration, default=900.0, metavar="TIME", help="longest wait for an answer (15m)")
    how.add_argument("--quick", action="store_true", help="64 lines, two rounds, no trials: a first look")
    how.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="keep everything here, and go on from here")
    add_output_options(parser)


def run(args: argparse.Namespace, console: Console) -> int:
    """Compare, print tables, write the page."""
    settings = _settings(args)
    from ..bench.embed.flow import PAGE, run_embed
    from ..bench.embed.page import render
    from ..bench.embed.tables import terminal
    from ..bench.machine import describe
    from ..bench.webpage import command_line, write_text

    console.say(f"zeroskip bench embed on {describe(max(settings.threads))}")
    with _folder(args.out) as out:
        with console.progress() as bars:
            doc = run_embed(settings, out, command=command_line(args.typed), say=console.say, progress=bars)
        console.show(terminal(doc["rows"]))
        if args.out is not None:
            write_text(out / PAGE, render(doc))
            console.show(f"\nthe page: {(out / PAGE).resolve()}")
    console.emit(doc)
    return 1 if any(row["status"] == "failed" for row in doc["rows"]) else 0


@contextlib.contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """The folder that was named, or one that goes afterwards."""
    if out is not None:
        yield out
        return
    with tempfile.TemporaryDirectory(prefix="zeroskip-") as work:
        yield Path(work)


def _settings(args: argparse.Namespace) -> EmbedSettings:
    from ..bench.embed.settings import ENGINES, MIXED, QUICK_BATCHES, QUICK_LINES, QUICK_ROUNDS, EmbedSettings
    from ..bench.machine import num_cores

    given = args.batch or []
    sizes = [part for part in given if part != MIXED]
    wrong = [part for part in sizes if not part.isdigit() or int(part) == 0]
    if wrong:
        raise UsageError(f"--batch has {wrong[0]!r}; write sizes and mixed, as in 1,32,mixed.")
    return EmbedSettings(
        models=tuple(args.models),
        dense=args.dense,
        engines=tuple(args.engines or ENGINES),
        text=args.text,
        lines=args.lines or (QUICK_LINES if args.quick else EmbedSettings.lines),
        batches=tuple(map(int, sizes)) if given else QUICK_BATCHES if args.quick else EmbedSettings.batches,
        mixed=MIXED in given or not given,
        tokens=args.tokens,
        threads=tuple(args.threads or [num_cores()]),
        rounds=args.rounds or (QUICK_ROUNDS if args.quick else EmbedSettings.rounds),
        budget_s=args.budget,
        limit_s=args.limit,
        deepsparse_python=args.deepsparse_python,
        quick=args.quick,
    )
