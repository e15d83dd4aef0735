"""Turns: each engine runs a case once a round while all others sleep. What is done is on disk, and not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..._memory import available_bytes
from ..process import Worker, WorkerFailed, quiet
from ..resume import read_turns
from ..timer import Samples
from .entries import Entry
from .settings import MIXED, SINGLE, START, EmbedSettings, batch_of
from .trial import check, command, start

Progress = Callable[[str, int, int], None]
Turn = dict[str, Any]
SCHEMA, VERSION = "zeroskip.bench.embed.turn", 1
SINGLE_REPEATS = 50
_WARM_LINES = 64
_SPARE_BYTES = 2 << 30


@dataclass(frozen=True)
class Slot:
    """What takes a turn: an engine with a number of threads."""

    entry: Entry
    threads: int


@dataclass
class Pool:
    """The workers that live; the one that was used longest ago goes where memory is short.

    Args:
        folder: Where the texts are.
        limit_s: For an answer.
    """

    folder: Path
    limit_s: float
    workers: dict[tuple[str, int, int], Worker] = field(default_factory=dict)
    warm: set[tuple[tuple[str, int, int], str]] = field(default_factory=set)

    def get(self, slot: Slot, case: str) -> Worker:
        """A checked worker that is ready for a case.

        Raises:
            WorkerFailed: If it cannot be started, or is wrong.
        """
        place = slot.entry.variant_for(case)
        key = slot.entry.key, place, slot.threads
        worker = self.workers.pop(key, None)
        if worker is None or not worker.alive:
            if worker is not None:
                worker.close()
            self.warm = {item for item in self.warm if item[0] != key}
            self._make_room()
            worker = start(slot.entry, slot.entry.variants[place], threads=slot.threads, limit_s=self.limit_s)
            try:
                check(worker, slot.entry, self.folder)
            except WorkerFailed:
                worker.close()
                raise
        self.workers[key] = worker  # the last one is the one used last
        return worker

    def first(self, slot: Slot, case: str) -> bool:
        """Whether the worker of a slot runs a case for the first time."""
        key = (slot.entry.key, slot.entry.variant_for(case), slot.threads), case
        found = key not in self.warm
        self.warm.add(key)
        return found

    def quiet(self) -> None:
        """Wait until all sleep."""
        quiet([worker for worker in self.workers.values() if worker.alive])

    def close(self) -> None:
        """End all."""
        for worker in self.workers.values():
            worker.close()
        self.workers.clear()

    def _make_room(self) -> None:
        while self.workers and (free := available_bytes()) is not None and free < _SPARE_BYTES:
            oldest = next(iter(self.workers))
            self.workers.pop(oldest).close()


def run_turns(
    entries: Sequence[Entry], settings: EmbedSettings, folder: Path, turns_file: Path, progress: Progress
) -> list[Turn]:
    """Every turn that is not on disk yet, in rounds; then all there are.

    Args:
        entries: What takes part; those that are not ok take no turn.
        settings: Cases, threads, rounds, budget.
        folder: Of prepared files.
        turns_file: Where turns are, one a line; new ones are written as soon as they are there.
        progress: Called with (stage, done, total).
    """
    done = read_turns(turns_file, SCHEMA, VERSION)
    known = {(turn["row"], turn["threads"], turn["case"], turn["round"]) for turn in done}
    failed = {(turn["row"], turn["threads"], turn["case"]) for turn in done if turn["reason"]}
    slots = [Slot(entry, threads) for entry in entries if entry.status == "ok" for threads in settings.threads]
    total, made = settings.rounds * len(settings.cases) * len(slots), 0
    began = time.perf_counter()
    pool = Pool(folder, settings.limit_s)
    try:
        with open(turns_file, "a", encoding="utf-8") as file:
            for turn in range(settings.rounds):
                if turn and settings.budget_s is not None and time.perf_counter() - began > settings.budget_s:
                    break
                for case in settings.cases:
                    for place in range(len(slots)):
                        slot = slots[(place + turn) % len(slots)]
                        who = slot.entry.key, slot.threads, case
                        made += 1
                        if (*who, turn) in known or who in failed:
                            continue
                        found = take_turn(pool, slot, case, turn, folder)
                        if found["reason"]:
                            failed.add(who)
                        done.append(found)
                        file.write(json.dumps(found, allow_nan=False) + "\n")
                        file.flush()
                        progress(f"round {turn + 1} of {settings.rounds}", made, total)
    finally:
        pool.close()
    return done


def take_turn(pool: Pool, slot: Slot, case: str, turn: int, folder: Path) -> Turn:
    """One case of one engine, or why it failed."""
    found: Turn = {
        "schema": SCHEMA,
        "schema_version": VERSION,
        "row": slot.entry.key,
        "threads": slot.threads,
        "case": case,
        "round": turn,
        "reason": None,
    }
    try:
        found.update(_start(pool, slot, folder, memory=turn == 0) if case == START else _run(pool, slot, case, folder))
    except WorkerFailed as error:
        found["reason"] = str(error)
    return found


def _run(pool: Pool, slot: Slot, case: str, folder: Path) -> Turn:
    """Warm up, then time; in a new process a whole pass first, as engines compile and grow when a shape is new."""
    worker = pool.get(slot, case)
    batch = slot.entry.mixed_batch if case == MIXED else batch_of(case)
    order = {"batch": batch, "sorted": case == MIXED, "repeat": SINGLE_REPEATS if case == SINGLE else 1}
    lines = int(worker.ask("texts", file=str(folder / ("single.json" if case == SINGLE else "lines.json")))["lines"])
    pool.quiet()
    worker.ask("ready", batch=batch)
    warm = lines if pool.first(slot, case) else min(lines, max(batch, _WARM_LINES))
    worker.ask("run", count=warm, **order)
    answer = worker.ask("run", count=lines, **order)
    found = {"seconds": answer["seconds"], "lines": answer["lines"]}
    if batch == 1 and answer["times_s"]:
        samples = Samples(answer["times_s"])
        found.update(p50_s=samples.quantile(0.5), p95_s=samples.quantile(0.95))
    return found


def _start(pool: Pool, slot: Slot, folder: Path, *, memory: bool) -> Turn:
    """A process of its own: seconds until its first answer; then its memory, after all lines went through it."""
    chosen, entry = slot.entry.variants[slot.entry.variant_for(START)], slot.entry
    pool.quiet()
    worker = Worker(command(entry.python), threads=slot.threads, limit_s=pool.limit_s)
    try:
        worker.ask("load", engine=entry.worker, spec={**chosen.spec, "threads": slot.threads})
        worker.ask("texts", file=str(folder / "single.json"))
        worker.ask("embed", batch=1, count=1, out=str(folder / "first.npy"))
        started = time.perf_counter() - worker.started
        if not memory:
            return {"start_s": started}
        lines = worker.ask("texts", file=str(folder / "lines.json"))["lines"]
        worker.ask("ready", batch=entry.mixed_batch)
        worker.ask("run", batch=entry.mixed_batch, sorted=True, count=lines, repeat=1)
        return {"start_s": started, **worker.ask("memory")}
    finally:
        worker.close()
