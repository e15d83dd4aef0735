"""`zeroskip data list`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console

if TYPE_CHECKING:
    from ..datasets import Dataset


def run(args: argparse.Namespace, console: Console) -> int:
    from ..bench.tables import table
    from ..datasets import registry

    found = [_described(one) for one in registry]
    console.show(table([_line(one) for one in found]))
    for one in found:
        if one["why_not"] is not None:
            console.show(f"\n{one['name']}: {one['why_not']}.")
    for name, reason in registry.unavailable.items():
        console.say(f"{name} cannot be loaded: {reason}")
    console.emit({"datasets": found, "unavailable": registry.unavailable})
    return 0


def _described(one: Dataset) -> dict[str, Any]:
    from .._errors import ZeroskipError

    why_not = one.why_not()
    entries = []
    if why_not is None:
        try:
            entries = one.entries()
        except ZeroskipError as error:  # a damaged archive is a reason, too
            why_not = str(error).rstrip(".")
    paths = {entry.path for entry in entries if entry.path is not None}
    return {
        "name": one.name,
        "title": one.title,
        "kind": one.kind,
        "licence": one.licence,
        "source": one.source,
        "entries": len(entries),
        "downloads": len(one.files),
        "size_bytes": sum(_bytes(path) for path in paths) if paths else None,
        "why_not": why_not,
    }


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _line(one: dict[str, Any]) -> dict[str, str]:
    here = "no" if one["why_not"] is not None else "generated" if one["source"] is None else "yes"
    return {
        "data set": one["name"],
        "kind": one["kind"],
        "entries": str(one["entries"]) if one["entries"] else "-",
        "here": here,
        "MB": "-" if one["size_bytes"] is None else f"{one['size_bytes'] / 1e6:.2f}",
        "to get": str(one["downloads"]) if one["downloads"] else "-",
        "what": one["title"],
        "licence": one["licence"],
    }
