"""`zeroskip data show`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError

if TYPE_CHECKING:
    from ..datasets import Entry
    from ..io.masks import StoredRule


def run(args: argparse.Namespace, console: Console) -> int:
    path = Path(args.what)
    if path.is_file():
        return _show_file(path, console)
    from ..datasets import find, registry

    dataset = args.what.partition("/")[0]
    if dataset not in registry:
        known = ", ".join(sorted(registry.names()))
        raise UsageError(f"{args.what} is not a file, and {dataset!r} no data set; pass a file, or one of: {known}.")
    entries = find(args.what)
    if len(entries) == 1:
        return _show_entry(entries[0], args.seed, console)
    return _show_entries(entries, args.most, console)


def _show_file(path: Path, console: Console) -> int:
    from ..datasets import with_drawn_values
    from ..datasets.io import SUFFIXES, Structure, read_file
    from ..datasets.traces import is_trace
    from ..formats import CSR
    from ..io.masks import StoredRule, read_mask

    if path.suffix == ".npz" and is_trace(path):
        return _show_trace(path, console)
    if path.name.endswith((*SUFFIXES, ".tar.gz")):
        matrix = read_file(path)
        if isinstance(matrix, Structure):
            matrix = with_drawn_values(matrix, path.name, 0)
    else:
        mask = read_mask(path)
        if isinstance(mask, StoredRule):
            found = _rule_numbers(mask)
            console.show("\n".join(_rule_lines(found)))
            console.emit({"file": str(path), **found})
            return 0
        matrix = mask
    assert isinstance(matrix, CSR)
    return _show_matrix({"file": str(path)}, matrix, console)


def _show_trace(path: Path, console: Console) -> int:
    from ..bench.tables import table
    from ..datasets import traces

    found = [one.statistics() for one in traces.load(path)]
    console.show(
        table(
            [
                {
                    "layer": one["name"] or "(the model)",
                    "positions": str(one["positions"]),
                    "features": str(one["features"]),
                    "density": f"{one['density']:.4f}",
                    "never active": str(one["never_active"]),
                    "always active": str(one["always_active"]),
                }
                for one in found
            ]
        )
    )
    console.emit({"file": str(path), "layers": found})
    return 0


def _show_entry(entry: Entry, seed: int, console: Console) -> int:
    known = {name: getattr(entry, name) for name in ("dataset", "name", "kind", "model", "method", "level")}
    head = ", ".join(f"{name} {known[name]}" for name in ("model", "method", "level") if known[name] is not None)
    console.show(f"{entry.dataset}/{entry.name} ({entry.kind}{'; ' if head else ''}{head})")
    return _show_matrix(known, entry.matrix(seed), console)


def _show_matrix(known: dict[str, Any], matrix: Any, console: Console) -> int:
    from ..datasets import features

    found = features(matrix)
    console.show("\n".join(_feature_lines(found)))
    console.emit({**known, **found})
    return 0


def _show_entries(entries: list[Entry], most: int, console: Console) -> int:
    from ..bench.tables import table

    shown = entries if most == 0 else entries[:most]
    columns = ("name", "model", "method", "level", "shape", "nnz")
    rows = [{name: _text(getattr(entry, name)) for name in columns} for entry in shown]
    kept = [name for name in columns if any(row[name] != "-" for row in rows)]
    console.show(table([{name: row[name] for name in kept} for row in rows]))
    if len(shown) < len(entries):
        console.show(f"... and {len(entries) - len(shown)} more; --most 0 prints all")
    named = ("dataset", "kind", *columns)
    console.emit({"entries": [{name: getattr(entry, name) for name in named} for entry in entries]})
    return 0


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value[0]} x {value[1]}" if isinstance(value, tuple) else f"{value}"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _feature_lines(found: dict[str, Any]) -> list[str]:
    rows, cols = found["shape"]
    lines = [f"{rows} x {cols}, {found['nnz']} entries, sparsity {found['sparsity']:.6f}"]
    for one, many, empty in (("row", "rows", "empty_rows"), ("col", "columns", "empty_cols")):
        lines.append(
            f"entries of a {many.removesuffix('s')}: mean {found[f'{one}_mean']:.2f}, standard deviation "
            f"{found[f'{one}_std']:.2f}, skew {found[f'{one}_skew']:.2f}, from {found[f'{one}_min']} to "
            f"{found[f'{one}_max']}; {found[empty]} {many} are empty"
        )
    lines.append(
        f"bandwidth {_number(found['bandwidth'])}, rows span {_number(found['row_span'])} of the columns, neighbours "
        f"of an entry {_number(found['neighbours'])}, similarity of adjacent rows {_number(found['similarity'])}"
    )
    fills = [f"{size} {_number(fill)} ({found['blocks'][size]})" for size, fill in found["block_fill"].items()]
    lines.append(f"fill of blocks that hold any (how many): {', '.join(fills)}")
    lines.append(
        "share of groups that fit N:M: " + ", ".join(f"{key} {share:.4g}" for key, share in found["nm"].items())
    )
    return lines


def _rule_numbers(stored: StoredRule) -> dict[str, Any]:
    """A rule without its entries; where they are drawn there is nothing to say of rows before they are."""
    from dataclasses import asdict

    from ..sparsify.attention import describe

    head = {"kind": stored.kind, "seed": stored.seed}
    if stored.rule is not None:
        return {**head, "rule": asdict(stored.rule), **describe(stored.rule, stored.queries, stored.keys)}
    shape = (stored.queries, stored.keys)
    return {**head, "rule": None, "shape": shape, "nnz": stored.nnz, "sparsity": 1 - stored.nnz / (shape[0] * shape[1])}


def _rule_lines(found: dict[str, Any]) -> list[str]:
    rule = found["rule"]
    text = "drawn when it is made" if rule is None else ", ".join(f"{key} {value}" for key, value in rule.items())
    lines = [f"{found['kind']} mask by rule: {text}"]
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
