"""The path of `zeroskip bench model`: build models, measure in turns, make rows; a folder that has a part goes on."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .. import machine
from ..resume import SETTINGS, check_folder, read_json
from ..webpage import write_text
from . import prepare
from .entries import Entry
from .rows import make_rows
from .runner import run_turns
from .settings import CHECK_TOKENS, ModelSettings

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]
WHO = "bench model"
PREPARED, TURNS, ROWS, PAGE, FILES = "prepared.json", "turns.jsonl", "rows.jsonl", "report.html", "files"


def run_model(settings: ModelSettings, out: Path, *, command: str, say: Say, progress: Progress) -> dict[str, Any]:
    """Do it all, or what is left of it.

    Args:
        settings: What to compare.
        out: Folder of what was prepared and measured.
        command: What was typed, for the page.
        say: Called with a line now and then, for people.
        progress: Called with (stage, done, total).
    Returns:
        `rows` (of `schema.FIELDS`), `command`, `model`, `parameters`, `text`, `windows`, `window`, `machine`,
        `versions`, `commit`, `when`.
    Raises:
        InvalidArgument: If the folder holds another comparison, or the models do not fit.
    """
    out = out.resolve()
    machine.use_threads(settings.threads)
    prepared = _prepared(settings, out, say, progress)
    entries = [Entry.from_json(item) for item in prepared["entries"]]
    for entry in entries:
        if entry.status != "ok":
            say(f"{entry.label}: {entry.status}: {entry.reason}")
    turns = run_turns(entries, settings, out / FILES, out / TURNS, progress)
    header = {
        "model": prepared["model"],
        "parameters": prepared["parameters"],
        "machine": machine.machine(),
        "versions": machine.versions(),
        "commit": machine.commit(),
        "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
    rows = make_rows(entries, turns, settings, header)
    write_text(out / ROWS, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    shown = {name: getattr(settings, name) for name in ("text", "windows", "window")}
    return {"command": command, **shown, **header, "rows": rows}


def _prepared(settings: ModelSettings, out: Path, say: Say, progress: Progress) -> dict[str, Any]:
    """What prepared.json holds; made where it is not there. Nothing is written before all that was given fits."""
    loaded = prepare.dense_model(settings)
    measured, other = prepare.tokens(settings, loaded)
    digest = hashlib.sha256(measured.tobytes() + other.tobytes()).hexdigest()
    wanted = {**settings.lasting(), "content": digest}
    check_folder(wanted, out, WHO)
    path, files = out / PREPARED, out / FILES
    if path.is_file():
        say(f"going on in {out}: models are prepared")
        return read_json(path, WHO)
    files.mkdir(parents=True, exist_ok=True)
    write_text(out / SETTINGS, json.dumps(wanted, indent=1) + "\n")
    need = max(settings.window * settings.windows, settings.prompt, max(settings.batches) * settings.context)
    np.save(files / "ids.npy", measured[: max(need, 2 * CHECK_TOKENS)])
    ground = prepare.Ground(settings, loaded, measured, other, files, progress)
    if not (files / "reference.npy").is_file():
        prepare.write_reference(ground, files / "reference.npy")
    found = prepare.entries(ground)
    document = {
        "model": loaded.name,
        "parameters": prepare.parameters(loaded),
        "entries": [entry.as_json() for entry in found],
    }
    write_text(path, json.dumps(document, indent=1, allow_nan=False) + "\n")
    return document
