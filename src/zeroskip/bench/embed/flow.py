"""The path of `zeroskip bench embed`: prepare, try, measure in turns, make rows; a folder that has a part goes on."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...io import MANIFEST
from .. import machine
from ..resume import SETTINGS, check_folder, read_json
from ..webpage import write_text
from .entries import Entry
from .prepare import dense_model, entries, ground, inputs
from .rows import make_rows
from .runner import run_turns
from .settings import EmbedSettings
from .trial import MIXED_BATCHES, Trial, choose

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
WHO = "bench embed"
PREPARED, TURNS, ROWS, PAGE, FILES = "prepared.json", "turns.jsonl", "rows.jsonl", "report.html", "files"
TRIAL_LINES = 64


def run_embed(settings: EmbedSettings, out: Path, *, command: str, say: Say, progress: Progress) -> dict[str, Any]:
    """Do it all, or what is left of it.

    Args:
        settings: What to compare.
        out: Folder of what was prepared and measured.
        command: What was typed, for the page.
        say: Called with a line now and then, for people.
        progress: Called with (stage, done, total).
    Returns:
        `rows` (of `schema.FIELDS`), `command`, `dense`, `lines`, `machine`, `versions`, `commit`, `when`.
    Raises:
        InvalidArgument: If the folder holds another comparison, or the models do not fit.
    """
    out = out.resolve()
    prepared = _prepared(settings, out, say, progress)
    found = [Entry.from_json(item) for item in prepared["entries"]]
    for entry in found:
        if entry.status != "ok":
            say(f"{entry.label}: {entry.status}: {entry.reason}")
    turns = run_turns(found, settings, out / FILES, out / TURNS, progress)
    header = {
        "dense": prepared["dense"],
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    rows = make_rows(found, turns, settings, header, prepared["lines"])
    write_text(out / ROWS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    return {"command": command, "lines": prepared["lines"], "tokens": settings.tokens, **header, "rows": rows}


def identity(settings: EmbedSettings, lines: Sequence[str]) -> dict[str, Any]:
    """What must be the same for a run to go on: the settings, and what is in the models and the text."""
    found = hashlib.sha256(json.dumps(lines).encode())
    for folder in settings.models:
        found.update((folder / MANIFEST).read_bytes())  # has the hashes of the other files
    return {**settings.lasting(), "content": found.hexdigest()}


def _prepared(settings: EmbedSettings, out: Path, say: Say, progress: Progress) -> Mapping[str, Any]:
    """What prepared.json holds; made where it is not there. Nothing is written before all that was given fits."""
    path = out / PREPARED
    given = inputs(settings)
    wanted = identity(settings, given.lines)
    check_folder(wanted, out, WHO)
    if path.is_file():
        say(f"going on in {out}: engines are prepared")
        return read_json(path, WHO)
    progress("preparing", 0, 1)
    loaded, single = dense_model(settings, given)
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / SETTINGS, json.dumps(wanted, indent=1) + "\n")
    found = ground(settings, given.lines, loaded, single, out / FILES)
    trial = Trial(
        folder=out / FILES,
        lines=len(found.lines),
        trial_lines=min(TRIAL_LINES, len(found.lines)),
        mixed_batches=(32,) if settings.quick or not settings.mixed else MIXED_BATCHES,
        threads=max(settings.threads),
        limit_s=settings.limit_s,
    )
    made = entries(found, progress)
    if settings.quick:
        made = [replace(entry, variants=entry.variants[:1]) for entry in made]
    tried = _tried(made, trial, progress)
    document = {
        "dense": found.dense.loaded.name,
        "lines": len(found.lines),
        "entries": [entry.as_json() for entry in tried],
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document


def _tried(made: Sequence[Entry], trial: Trial, progress: Progress) -> list[Entry]:
    """Each entry with what its trial found. Trials take minutes: each is on disk at once and not made again."""
    total, done = sum(len(entry.variants) for entry in made), 0

    def step() -> None:
        nonlocal done
        done += 1
        progress("trying engines", done, total)

    def tried(entry: Entry) -> Entry:
        path = trial.folder / f"tried-{entry.key.replace(':', '-')}.json"
        if path.is_file():
            return Entry.from_json(read_json(path, WHO))
        chosen = choose(entry, trial, step)
        write_text(path, json.dumps(chosen.as_json(), indent=1, allow_nan=False) + "\n")
        return chosen

    return [tried(entry) for entry in made]
