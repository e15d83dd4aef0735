"""What lets a comparison go on where it was stopped: settings that must not differ, and turns, one a line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .._errors import DamagedFile, InvalidArgument

SETTINGS = "settings.json"
Turn = dict[str, Any]


def check_folder(wanted: Mapping[str, Any], out: Path, who: str) -> None:
    """Refuse a folder that is not empty, unless it holds the comparison that `wanted` tells.

    Args:
        wanted: What its settings.json must hold.
        out: The folder.
        who: The command, for messages.
    Raises:
        InvalidArgument: If it holds something else; names what differs.
    """
    path = out / SETTINGS
    if path.is_file():
        before = read_json(path, who)
        differing = [name for name in wanted if before.get(name) != wanted[name]]
        if differing:
            name = differing[0]
            raise InvalidArgument(
                f"{who}: {out} holds a comparison with {name} = {before.get(name)!r}, not {wanted[name]!r}; "
                "choose another folder, or the same settings to go on."
            )
        return
    if out.is_dir() and any(out.iterdir()):
        raise InvalidArgument(f"{who}: {out} is not empty and holds no comparison; choose another folder.")
    if out.exists() and not out.is_dir():
        raise InvalidArgument(f"{who}: {out} is a file; choose a folder.")


def read_json(path: Path, who: str) -> dict[str, Any]:
    """A file of the folder.

    Raises:
        DamagedFile: If it cannot be read.
    """
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedFile(f"{who}: {path} cannot be read ({error}); remove the folder and begin again.") from None
    return found


def read_turns(path: Path, schema: str, version: int) -> list[Turn]:
    """The turns of an earlier run. A last line that was cut off is left out, and off the file.

    Raises:
        DamagedFile: If a line in between is no turn.
    """
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    found: list[Turn] = []
    for number, line in enumerate(lines[:-1], 1):
        try:
            turn = json.loads(line)
            if (turn["schema"], turn["schema_version"]) != (schema, version):
                raise ValueError(f"schema is {turn['schema']} {turn['schema_version']}")
            found.append(turn)
        except (ValueError, KeyError, TypeError) as error:
            raise DamagedFile(f"bench: line {number} of {path} is no turn ({error}); remove the folder.") from None
    if lines[-1]:
        path.write_text("".join(f"{line}\n" for line in lines[:-1]), encoding="utf-8")
    return found
