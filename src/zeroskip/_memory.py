"""How much memory there is, for this process: what the system says, within the limit of its control group."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

_PROC, _GROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def total_bytes() -> int | None:
    """Memory that the process could have at most; None where the system does not say."""
    try:
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):  # not everywhere
        return None
    return min([found, *(limit for limit, _ in _limits())])


def available_bytes() -> int | None:
    """Memory that is there for more, caches of files counted as free; None where the system does not say."""
    free = _meminfo("MemAvailable")
    if free is None:
        return None
    return max(0, min([free, *(limit - used for limit, used in _limits())]))


def _meminfo(name: str) -> int | None:
    try:
        for line in (_PROC / "meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    return None


def _limits() -> Iterator[tuple[int, int]]:
    """Of each control group around this process that has a limit: that, and what is used by other than files."""
    try:
        lines = (_PROC / "self" / "cgroup").read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return
    for line in lines:
        _, kinds, path = line.split(":", 2)
        own = Path(path.lstrip("/"))
        if not kinds:  # version 2
            for folder in (_GROUPS / own, *(_GROUPS / up for up in own.parents)):
                yield from _limit(folder, "memory.max", "memory.current", "inactive_file")
        elif "memory" in kinds.split(","):  # version 1
            for folder in (_GROUPS / "memory" / own, _GROUPS / "memory"):
                yield from _limit(folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def _limit(folder: Path, limit: str, used: str, files: str) -> Iterator[tuple[int, int]]:
    try:
        most = int((folder / limit).read_text())  # "max" is no number: no limit
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        yield most, int((folder / used).read_text()) - int(stat.get(files, 0))
    except (OSError, ValueError):
        return
