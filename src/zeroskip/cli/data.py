"""Make data to try sparse kernels on, and print what a file of it holds. Needs no network."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError
from ._options import Help, add_output_options, add_seed, existing_file, fractions, mask_kinds, positives

if TYPE_CHECKING:
    from ..io.masks import StoredRule

EPILOG = """\
examples:
  zeroskip data make masks -o masks                         the survey's 84 attention masks, as .smtx
  zeroskip data make masks -o long --lengths none --long 16384,65536 --kinds window,longformer --sparsity 0.98
  zeroskip data show masks/bigbird_1024_90.smtx             entries, rows, and how well blocks fit
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

SHOW_EPILOG = """\
examples:
  zeroskip data show masks/window_1024_90.smtx
  zeroskip data show graph.mtx.gz --json

Takes .smtx, .npz (SciPy's CSR), .json (a mask by rule), and MatrixMarket. A fill of 1 means that blocks of that size
hold nothing but entries.
"""

NESTED = True


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="what to do", dest="action", metavar="ACTION", required=True)
    made = actions.add_parser("make", help="write a set of files", epilog=EPILOG, formatter_class=Help)
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
    show = actions.add_parser(
        "show",
        help="what a file of a mask or matrix holds",
        description="Print shape, entries, how rows differ, and how well blocks would fit.",
        epilog=SHOW_EPILOG,
        formatter_class=Help,
    )
    show.add_argument("file", type=existing_file, metavar="FILE", help=".smtx, .npz, .json, .mtx or .mtx.gz")
    add_output_options(show)


def run(args: argparse.Namespace, console: Console) -> int:
    return _show(args, console) if args.action == "show" else _make_masks(args, console)


def _lengths(text: str) -> list[int]:
    return [] if text.strip() == "none" else list(positives(text))


_lengths.__name__ = "numbers"


def _make_masks(args: argparse.Namespace, console: Console) -> int:
    from ..bench.tables import table
    from ..io import masks

    lengths = masks.LENGTHS if args.lengths is None else args.lengths
    if not lengths and not args.long:
        raise UsageError("--lengths none leaves nothing to make; add --long 16384, or name lengths.")
    if shared := set(lengths) & set(args.long):
        raise UsageError(f"{min(shared)} is among --lengths and --long; leave it out of one.")
    wanted = masks.survey_masks(
        kinds=args.kinds or masks.KINDS,
        lengths=lengths,
        long=args.long,
        sparsities=args.sparsity or masks.SPARSITIES,
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


def _show(args: argparse.Namespace, console: Console) -> int:
    from ..io.masks import StoredRule, read_mask
    from ..sparsify.attention import describe

    path: Path = args.file
    if path.name.endswith((".mtx", ".mtx.gz")):
        from ..bench.stored import StoredProblem

        found: dict[str, Any] = describe(StoredProblem(path, path.name, "float32", 0).matrix())
    else:
        mask = read_mask(path)
        found = _rule_numbers(mask) if isinstance(mask, StoredRule) else describe(mask)
    console.show("\n".join(_lines(found)))
    console.emit({"file": str(path), **found})
    return 0


def _rule_numbers(stored: StoredRule) -> dict[str, Any]:
    """A rule without its entries; where they are drawn there is nothing to say of rows before they are."""
    from dataclasses import asdict

    from ..sparsify.attention import describe

    head = {"kind": stored.kind, "seed": stored.seed}
    if stored.rule is not None:
        return {**head, "rule": asdict(stored.rule), **describe(stored.rule, stored.queries, stored.keys)}
    shape = (stored.queries, stored.keys)
    return {**head, "rule": None, "shape": shape, "nnz": stored.nnz, "sparsity": 1 - stored.nnz / (shape[0] * shape[1])}


def _lines(found: dict[str, Any]) -> list[str]:
    lines = []
    if "kind" in found:
        rule = found["rule"]
        text = "drawn when it is made" if rule is None else ", ".join(f"{key} {value}" for key, value in rule.items())
        lines.append(f"{found['kind']} mask by rule: {text}")
    rows, cols = found["shape"]
    lines.append(f"{rows} x {cols}, {found['nnz']} entries, sparsity {found['sparsity']:.6f}")
    if "row_mean" in found:
        lines.append(
            f"entries of a row: mean {found['row_mean']:.2f}, standard deviation {found['row_std']:.2f}, "
            f"from {found['row_min']} to {found['row_max']}; {found['empty_rows']} rows are empty"
        )
        fills = [
            f"{size} x {size} {'none' if fill is None else f'{fill:.3f}'} ({found['blocks'][size]} blocks)"
            for size, fill in found["block_fill"].items()
        ]
        lines.append(f"fill of blocks that hold any: {', '.join(fills)}")
    return lines
