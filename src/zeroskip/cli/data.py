"""Data to try sparse kernels on: list it, look at it, download it, make it."""

from __future__ import annotations

import argparse
from pathlib import Path

from . import _data_get, _data_list, _data_make, _data_show
from ._console import Console
from ._options import Help, add_output_options, add_seed, natural

EPILOG = """\
examples:
  zeroskip data list                                        what there is, and what of it is here
  zeroskip data show planetoid/cora                         what a matrix looks like
  zeroskip data get snap/roadNet-CA                         download
  zeroskip data make masks -o masks                         the survey's 84 attention masks, as .smtx
"""

LIST_EPILOG = """\
examples:
  zeroskip data list                                        every data set, and which are here
  zeroskip data list --json

Files are looked for in the folder of ZEROSKIP_DATA_DIR, then in `data` below ZEROSKIP_CACHE_DIR.
"""

GET_EPILOG = """\
examples:
  zeroskip data get snap/roadNet-CA                         one file
  zeroskip data get 'snap/com-*' suitesparse --to /data     several, into a folder
  zeroskip data get dlmc --again                            once more, and compare

A download that was interrupted goes on where it was. Where no checksum is known, the one of the first download is kept
in checksums.json of the folder, and later downloads must have the same. Files go to ZEROSKIP_DATA_DIR where that can be
written, else to `data` below ZEROSKIP_CACHE_DIR.
"""

SHOW_EPILOG = """\
examples:
  zeroskip data show dlmc                                   its entries
  zeroskip data show 'dlmc/*/magnitude_pruning/0.9/*'       some of them
  zeroskip data show planetoid/cora                         features of one
  zeroskip data show masks/window_1024_90.smtx              of a file
  zeroskip data show graph.mtx.gz --json

Takes entries of data sets, and files: .smtx, .npz (SciPy's CSR, or a trace of activations), .json (a mask by rule), and
MatrixMarket. A fill of 1 means that blocks of that size hold nothing but entries. docs/data.md defines every number.
"""

NESTED = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="what to do", dest="action", metavar="ACTION", required=True)
    listed = actions.add_parser(
        "list",
        help="the data sets there are",
        description="Print every data set: its kind, entries, licence and size here, or why it is not here.",
        epilog=LIST_EPILOG,
        formatter_class=Help,
    )
    add_output_options(listed)
    show = actions.add_parser(
        "show",
        help="what a matrix looks like",
        description="Print the features of a matrix (rows, neighbours, blocks, N:M), or the entries of a data set.",
        epilog=SHOW_EPILOG,
        formatter_class=Help,
    )
    show.add_argument("what", metavar="NAME[/ENTRY]|FILE", help="an entry of a data set, a glob of them, or a file")
    show.add_argument("--most", type=natural, default=40, metavar="N", help="entries to print (40); 0 prints all")
    add_seed(show)
    add_output_options(show)
    get = actions.add_parser(
        "get",
        help="download a data set",
        description="Download files of data sets, go on where a download was interrupted, and check them.",
        epilog=GET_EPILOG,
        formatter_class=Help,
    )
    get.add_argument("names", nargs="+", metavar="NAME[/ENTRY]", help="a data set, or some of its files; takes globs")
    get.add_argument("--to", type=Path, metavar="FOLDER", help="the data folder (see below)")
    get.add_argument("--again", action="store_true", help="download what is there, too, and replace it")
    add_output_options(get)
    _data_make.add_arguments(actions)


def run(args: argparse.Namespace, console: Console) -> int:
    actions = {"list": _data_list.run, "show": _data_show.run, "get": _data_get.run, "make": _data_make.run}
    return actions[args.action](args, console)
