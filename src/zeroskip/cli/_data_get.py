"""`zeroskip data get`."""

from __future__ import annotations

import argparse
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ._console import Console, UsageError

if TYPE_CHECKING:
    from ..datasets import Remote


def run(args: argparse.Namespace, console: Console) -> int:
    from ..datasets import _fetch, _files

    wanted = [file for name in args.names for file in _wanted(name)]
    folder = (args.to or _files.download_folder()).expanduser()
    console.say(f"zeroskip data get: {len(wanted)} files to {folder}")
    found = []
    with console.progress() as bars:
        for file in wanted:
            got = _fetch.fetch(file, folder, again=args.again, progress=bars)
            bars.close()
            console.show(f"{got.path}  {got.size_bytes} bytes  sha256 {got.sha256}{_said(got)}")
            found.append({"url": file.url, **vars(got), "path": str(got.path)})
    console.emit({"folder": str(folder), "files": found})
    return 0


def _said(got: object) -> str:
    new, vouched = getattr(got, "new", False), getattr(got, "vouched", False)
    if not new:
        return "  (was here)" if vouched else "  (was here; no checksum is known)"
    return "" if vouched else "  (no checksum was known: this one is trusted from now on)"


def _wanted(name: str) -> list[Remote]:
    """The files of `DATASET` or `DATASET/ENTRY`, where a glob may stand for the entry."""
    from ..datasets import registry

    dataset, _, entry = name.partition("/")
    found = registry.get(dataset)
    if not found.files:
        raise UsageError(f"{dataset} has nothing to download; see {found.source or 'zeroskip data show ' + dataset}.")
    files = [file for file in found.files if not entry or fnmatchcase(file.entry, entry)]
    if not files:
        names = ", ".join(file.entry for file in found.files if file.entry) or "nothing but itself"
        raise UsageError(f"{dataset} has no file {entry!r} to download; it has {names}.")
    return files
