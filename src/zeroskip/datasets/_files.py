"""Where files of data sets lie: the folder that ZEROSKIP_DATA_DIR names, then `data` in the cache folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from .._errors import MissingDependency
from ..ops._cache import cache_dir


@dataclass(frozen=True)
class Remote:
    """A file that can be downloaded.

    Args:
        path: Where it lies below a data folder, such as `dlmc/dlmc.tar.gz`.
        url: Its address.
        entry: Of the data set that it is one of several files of; empty where it is the only one.
        sha256: Of its bytes; None where nobody vouches for one: the one of the first download then counts.
        size_bytes: About how many, for people; None where it is not known.
    """

    path: str
    url: str
    entry: str = ""
    sha256: str | None = None
    size_bytes: int | None = None


def folders() -> list[Path]:
    """The data folders, in the order in which they are searched; they need not be there."""
    named = os.environ.get("ZEROSKIP_DATA_DIR")
    return ([Path(named)] if named else []) + [cache_dir() / "data"]


def download_folder() -> Path:
    """Where downloads go: the folder of ZEROSKIP_DATA_DIR where it can be written, else the cache folder's `data`."""
    *named, own = folders()
    return next((folder for folder in named if _writable(folder)), own)


def _writable(folder: Path) -> bool:
    """A folder that nobody may write is left alone by the superuser, too."""
    return folder.is_dir() and os.access(folder, os.W_OK) and bool(folder.stat().st_mode & 0o222)


def locate(*names: str) -> Path | None:
    """The first of these that is in a data folder, as file or folder; an earlier name goes before an earlier folder."""
    places = (folder / name for name in names for folder in folders())
    return next((place for place in places if place.exists()), None)


def matching(pattern: str) -> list[Path]:
    """The files whose path below a data folder fits a glob; of two with the same name that of the earlier folder."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob(pattern)):
            found.setdefault(path.name, path)
    return [found[name] for name in sorted(found)]


def require(where: str, *names: str, get: str | None = None) -> Path:
    """`locate`, or an error.

    Args:
        where: The data set.
        get: The name for `zeroskip data get`, where that can bring it.
    Raises:
        MissingDependency: If none is there; names the places and the way to mend it.
    """
    found = locate(*names)
    if found is None:
        raise MissingDependency(f"{where}: {absent(*names, get=get)}.")
    return found


def absent(*names: str, get: str | None = None) -> str:
    """Why files are missed, and what to do."""
    places = " and ".join(str(folder) for folder in folders())
    mend = f"zeroskip data get {get}" if get else "set ZEROSKIP_DATA_DIR to the folder that has it"
    return f"{' or '.join(names)} is not in {places}; {mend}"
