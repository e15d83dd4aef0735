"""`zeroskip data make`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ._console import Console, UsageError
from ._options import Help, add_output_options, add_seed, fractions, mask_kinds, positives

MAKE_EPILOG = """\
examples:
  zeroskip data make masks -o masks                         the survey's 84 attention masks, as .smtx
  zeroskip data make masks -o long --lengths none --long 16384,65536 --kinds window,longformer --sparsity 0.98
"""

MASKS_EPILOG = """\
examples:
  zeroskip data make masks                                  84 masks in the folder masks, 146 MB
  zeroskip data make masks --kinds window,bigbird --lengths 512 --sparsity 0.9,0.95 -o few
  zeroskip data make masks --long 16384,65536 -o masks      and long ones by rule, a few hundred bytes each
  zeroskip data make masks --format npz -o npz              for scipy.sparse.load_npz

The same seed gives the same files. A run that was interrupted goes on where it was. `masks.json` in the folder lists
what there is; docs/data.md has the layout of the files, docs/patterns.md the kinds.
"""


def add_arguments(actions: Any) -> None:
    """`make`, among the actions of `zeroskip data`."""
    made = actions.add_parser("make", help="write a set of files", epilog=MAKE_EPILOG, formatter_class=Help)
    sets = made.add_subparsers(title="what to make", dest="set", metavar="SET", required=True)
    masks = sets.add_parser(
        "masks",
        help="attention masks of several kinds, lengths and sparsities",
        description="Write masks of attention, each with exactly the entries that its sparsity leaves, and an index.",
        epilog=MASKS_EPILOG,
        formatter_class=Help,
    )
    which = masks.add_argument_group("which (lists are separated by commas)")
    which.add_argument("--kinds", type=mask_kinds, metavar="KIND,...", help="(random,window,global,bigbird)")
    which.add_argument("--lengths", type=_lengths, metavar="N,...", help="queries and keys (512,1024,2048), or none")
    which.add_argument("--sparsity", type=fractions, metavar="S,...", help="(0.5,0.6,0.7,0.8,0.9,0.95,0.98)")
    which.add_argument("--long", type=positives, default=[], metavar="N,...", help="also these lengths, by rule")
    add_seed(which)
    where = masks.add_argument_group("where to")
    where.add_argument("-o", "--output", type=Path, default=Path("masks"), metavar="FOLDER", help="(masks)")
    where.add_argument("--format", choices=("smtx", "npz"), default="smtx", help="of masks with entries (smtx)")
    add_output_options(masks)


def run(args: argparse.Namespace, console: Console) -> int:
    return _make_masks(args, console)


def _lengths(text: str) -> list[int]:
    return [] if text.strip() == "none" else list(positives(text))


_lengths.__name__ = "numbers"


def _make_masks(args: argparse.Namespace, console: Console) -> int:
    from ..bench.tables import table
    from ..datasets.masks import KINDS, LENGTHS, SPARSITIES
    from ..io import masks

    lengths = LENGTHS if args.lengths is None else args.lengths
    if not lengths and not args.long:
        raise UsageError("--lengths none leaves nothing to make; add --long 16384, or name lengths.")
    if shared := set(lengths) & set(args.long):
        raise UsageError(f"{min(shared)} is among --lengths and --long; leave it out of one.")
    wanted = masks.survey_masks(
        kinds=args.kinds or KINDS,
        lengths=lengths,
        long=args.long,
        sparsities=args.sparsity or SPARSITIES,
        seed=args.seed,
        suffix=args.format,
    )
    console.say(f"zeroskip data make masks: {len(wanted)} masks to {args.output}, seed {args.seed}")
    with console.progress() as bars:
        index = masks.write_masks(args.output, wanted, progress=bars)
    names = {one.name for one in wanted}
    entries = [entry for entry in index["masks"] if entry["file"] in names]
    console.show(table(_summary(entries)))
    console.show(f"\n{len(entries)} masks in {args.output}, listed in {args.output / masks.INDEX}")
    console.emit(index)
    return 0


def _summary(entries: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One line for each length and kind."""
    groups: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["length"], entry["kind"]), []).append(entry)
    return [
        {
            "length": str(length),
            "kind": kind,
            "masks": str(len(found)),
            "sparsity": f"{min(one['sparsity'] for one in found):g} to {max(one['sparsity'] for one in found):g}",
            "entries": f"{min(one['nnz'] for one in found)} to {max(one['nnz'] for one in found)}",
            "MB": f"{sum(one['bytes'] for one in found) / 1e6:.1f}",
        }
        for (length, kind), found in groups.items()
    ]
