"""Turns: each engine runs alone, in a new process, once a round. What is done is on disk, and not done again."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..process import Worker, WorkerFailed
from ..resume import Turn, read_turns
from .entries import Entry
from .settings import CHECK_TOKENS, ModelSettings

Progress = Callable[[str, int, int], None]
SCHEMA, VERSION = "zeroskip.bench.model.turn", 1
# Of the tokens that steps drew, this share must be among the five likeliest of a pass over all tokens at once: rounding
# of x and of keys moves near ties, a wrong cache moves nearly all.
LEAST_LIKELY = 0.8
_FIRST_REPEATS = 3


def run_turns(
    entries: Sequence[Entry], settings: ModelSettings, folder: Path, turns_file: Path, progress: Progress
) -> list[Turn]:
    """Every turn that is not on disk yet, in rounds; then all there are.

    Args:
        entries: What takes part; those that are not ok take no turn.
        settings: Sizes, threads, rounds, budget.
        folder: Of prepared files: ids.npy, reference.npy.
        turns_file: Where turns are, one a line; new ones are written as soon as they are there.
        progress: Called with (stage, done, total).
    """
    done = read_turns(turns_file, SCHEMA, VERSION)
    known = {(turn["row"], turn["round"]) for turn in done}
    failed = {turn["row"] for turn in done if turn["reason"]}
    able = [entry for entry in entries if entry.status == "ok"]
    began = time.perf_counter()
    with open(turns_file, "a", encoding="utf-8") as file:
        for turn in range(settings.rounds):
            for place in range(len(able)):
                entry = able[(place + turn) % len(able)]
                late = settings.budget_s is not None and time.perf_counter() - began > settings.budget_s
                if late or (entry.key, turn) in known or entry.key in failed:
                    continue
                progress(f"round {turn + 1} of {settings.rounds}: {entry.label}", place, len(able))
                found = take_turn(entry, settings, folder, turn, quality=turn == 0)
                if found["reason"]:
                    failed.add(entry.key)
                done.append(found)
                file.write(json.dumps(found, allow_nan=False) + "\n")
                file.flush()
            progress(f"round {turn + 1} of {settings.rounds}", len(able), len(able))
    return done


def take_turn(entry: Entry, settings: ModelSettings, folder: Path, turn: int, *, quality: bool) -> Turn:
    """Everything about one engine in a process of its own, or why it failed."""
    found: Turn = {"schema": SCHEMA, "schema_version": VERSION, "row": entry.key, "round": turn, "reason": None}
    worker: Worker | None = None
    try:
        worker = Worker(command(), threads=settings.threads, limit_s=settings.limit_s)
        loaded = worker.ask("load", engine=entry.engine, spec=_spec(entry, settings))
        found.update(load_s=time.perf_counter() - worker.started, version=loaded["version"])
        found.update(_measure(worker, entry, settings, folder))
        if quality:
            found["quality"] = _finite(
                worker.ask(
                    "quality",
                    ids=str(folder / "ids.npy"),
                    reference=str(folder / "reference.npy"),
                    window=settings.window,
                )
            )
    except WorkerFailed as error:
        found["reason"] = str(error)
    finally:
        if worker is not None:
            worker.close()
    return found


def _measure(worker: Worker, entry: Entry, settings: ModelSettings, folder: Path) -> Mapping[str, Any]:
    """Right first, then fast; memory after one sequence, and at the end."""
    ids = str(folder / "ids.npy")
    checked = worker.ask("check", ids=ids, expected=entry.expected, tokens=CHECK_TOKENS)
    if checked["kl"] is not None and not checked["kl"] <= entry.most_kl:
        raise WorkerFailed(
            f"wrong result: mean divergence from torch on the same weights is {checked['kl']:.2g}, "
            f"{entry.most_kl:g} is allowed"
        )
    if not checked["likely"] >= LEAST_LIKELY:
        share = f"{checked['likely']:.0%} of the decoded tokens are likely to a pass over all at once"
        raise WorkerFailed(f"wrong result: {share}, {LEAST_LIKELY:.0%} must be")
    worker.ask("settle")
    found: dict[str, Any] = {"check": checked, "decode_s": {}}
    found["first_s"] = worker.ask("first", ids=ids, prompt=settings.prompt, repeat=_FIRST_REPEATS)["times_s"]
    for batch in settings.batches:
        answer = worker.ask("decode", ids=ids, batch=batch, context=settings.context, steps=settings.steps)
        found["decode_s"][str(batch)] = answer["times_s"]
        if "resident_bytes" not in found:
            found["resident_bytes"] = worker.ask("memory")["resident_bytes"]
    found["peak_bytes"] = worker.ask("memory")["peak_bytes"]
    return found


def _spec(entry: Entry, settings: ModelSettings) -> dict[str, Any]:
    sizes = {"room": settings.room, "sequences": max(2, *settings.batches), "threads": settings.threads}
    return {**(entry.spec or {}), **sizes}


def _finite(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Quality as figures.

    Raises:
        WorkerFailed: If one is not a number.
    """
    wrong = [name for name, value in answer.items() if value != value or abs(value) == float("inf")]
    if wrong:
        raise WorkerFailed(f"wrong result: {wrong[0]} is {answer[wrong[0]]}")
    return answer


def command() -> list[str]:
    """What starts a worker."""
    return [sys.executable, "-m", f"{__package__}.worker"]
