"""`zeroskip bench report`: the page and pictures of rows that were measured."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._console import Console, UsageError
from ._options import Help, add_output_options

EPILOG = """\
examples:
  zeroskip bench report zeroskip-bench-survey-cpu           what `bench run` wrote, into the same folder
  zeroskip bench report rows.jsonl more.jsonl -o page       rows of several runs together
"""


def add_parser(kinds: Any) -> None:
    report = kinds.add_parser(
        "report",
        help="a page and pictures of rows",
        description="Write one HTML page that needs nothing else, and a PNG of each figure.",
        epilog=EPILOG,
        formatter_class=Help,
    )
    report.add_argument(
        "files", nargs="+", type=Path, metavar="FILE", help="rows, as JSON lines, or folders of `bench run`"
    )
    report.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where to write (the first folder, or report)")
    report.add_argument("--no-png", action="store_true", help="the page alone")
    add_output_options(report)


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.report import write
    from ..bench.schema import read_rows
    from ..bench.webpage import command_line

    paths = [path / "rows.jsonl" if path.is_dir() else path for path in args.files]
    rows = [row for path in paths for row in read_rows(path, where="bench report")]
    if not rows:
        raise UsageError(f"bench report: {', '.join(map(str, args.files))} hold no rows; measure some with bench run.")
    out = args.out or (args.files[0] if args.files[0].is_dir() else Path("report"))
    command = command_line(["bench", "report", *map(str, args.files)])
    written = write(rows, out, pictures=not args.no_png, command=command)
    console.show(f"the page: {written[0]}" + (f", and {len(written) - 1} pictures" if len(written) > 1 else ""))
    console.emit({"files": [str(path) for path in written]})
    return 0
