"""The runner of `zeroskip bench run`: matrices of a suite in turns, within a time, and on from where it was stopped."""

from __future__ import annotations

import json
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np

from .. import datasets
from .._errors import InvalidArgument, ZeroskipError
from .._memory import total_bytes
from ..datasets import Entry
from . import limits, machine, schema, sddmm, spmm
from .operands import Expected
from .rows import Row
from .selection import CPU, select
from .stored import EntryProblem, OracleProblem
from .suites import Set, Suite

ROWS, SUITE = "rows.jsonl", "suite.json"
# With a budget a cell gets no less time than this, and no more than so many times what its set says. Less would save
# little: packing, choosing and checking take two to three seconds.
LEAST_S, MOST_TIMES = 0.2, 4.0

Progress = Callable[[str, int, int], None]
Say = Callable[[str], None]


@dataclass(frozen=True)
class RunSettings:
    """What `zeroskip bench run` was asked for.

    Args:
        suite: What to measure.
        out: Folder for the rows; one that holds rows of this suite is continued.
        budget_s: Begin no other matrix after this long; None for all of them.
        threads: None for ZEROSKIP_NUM_THREADS, or all cores.
        ray: Spread matrices over a Ray cluster, the one that the environment names or this machine.
    """

    suite: Suite
    out: Path
    budget_s: float | None = None
    threads: int | None = None
    seed: int = 0
    ray: bool = False


@dataclass(frozen=True)
class Item:
    """One matrix of a set, at the widths that are still to be measured."""

    set: Set
    entry: Entry
    ns: tuple[int, ...]

    @property
    def stratum(self) -> tuple[Any, ...]:
        return self.set.op, self.entry.dataset, self.entry.model, self.entry.method, self.entry.level


@dataclass
class Outcome:
    """How far a run came, in cells (a matrix at one n)."""

    total: int
    done: int = 0
    kept: int = 0
    left_out: int = 0
    seconds: float = 0.0


def run(settings: RunSettings, *, progress: Progress | None = None, say: Say = lambda _text: None) -> Outcome:
    """Measure what is missing, adding rows to `rows.jsonl` as soon as they are there.

    Matrices take turns by data set, model, method and level, in an order that the seed decides, so that a run which
    ends early has seen some of each.

    Raises:
        InvalidArgument: If the folder holds rows of something else, or nothing of the suite is here; before measuring.
    """
    items, total = _items(settings.suite, say)
    kept = _continue(settings)
    done = {_key(row) for row in kept}
    todo = [item for item in (_without(item, done) for item in items) if item.ns]
    outcome = Outcome(total, kept=total - sum(len(item.ns) for item in todo))
    if settings.ray:
        return _on_cluster(settings, todo, outcome, progress, say)
    threads = machine.use_threads(settings.threads)
    common = common_fields(settings.suite, threads, bind(threads)) if todo else {}
    clock, start = time.perf_counter, time.perf_counter()
    with open(settings.out / ROWS, "a", encoding="utf-8") as file:
        spent, timed = 0.0, 0.0  # seconds, and those of them that were timing
        left = sum(len(item.ns) for item in todo)
        for item in in_turns(todo, settings.seed):
            remaining = None if settings.budget_s is None else settings.budget_s - (clock() - start)
            if remaining is not None and remaining <= 0:
                break
            extra = max(0.0, spent - timed) / outcome.done if outcome.done else 0.0
            share = None if remaining is None else remaining / left - extra
            began, seconds = clock(), _seconds(item.set, share)
            for rows in measure(item, settings.seed, threads, seconds, common, say):
                _append(file, rows)
                outcome.done += 1
            left -= len(item.ns)
            outcome.left_out = sum(len(one.ns) for one in todo) - left - outcome.done
            spent += clock() - began
            timed += seconds * len(item.ns)
            if progress is not None:
                progress("bench run", total - left, total)
    outcome.seconds = clock() - start
    return outcome


def _on_cluster(
    settings: RunSettings, todo: Sequence[Item], outcome: Outcome, progress: Progress | None, say: Say
) -> Outcome:
    from . import cluster

    start = time.perf_counter()
    order = in_turns(todo, settings.seed)
    with open(settings.out / ROWS, "a", encoding="utf-8") as file:
        for item, cells, said in cluster.measured(order, settings):
            for rows in cells:
                _append(file, rows)
            for text in said:
                say(text)
            outcome.done += len(cells)
            outcome.left_out += len(item.ns) - len(cells)
            if progress is not None:
                progress("bench run", outcome.kept + outcome.done + outcome.left_out, outcome.total)
    outcome.seconds = time.perf_counter() - start
    return outcome


def common_fields(suite: Suite, threads: int, cpus: str | None) -> dict[str, Any]:
    """What all rows of a run on one machine have in common."""
    return {**limits.fields(threads), "suite": suite.name, "cpus": cpus}


def _append(file: IO[str], rows: Sequence[Row]) -> None:
    file.write("".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    file.flush()


def measure(
    item: Item, seed: int, threads: int, seconds: float, common: Mapping[str, Any], say: Say
) -> Iterator[list[Row]]:
    """The rows of one matrix, those of one n after the other; none, and a word, where it cannot be had."""
    problem = EntryProblem(item.entry, item.set.dtype, seed)
    try:
        a = problem.matrix()
    except ZeroskipError as error:
        say(f"left out: {error}")
        return
    if reason := needs_too_much(a.shape, item.ns):
        item = replace(item, ns=tuple(n for n in item.ns if not needs_too_much(a.shape, (n,))))
        say(f"left out: {item.entry.name}: {reason}")
    if item.set.device != CPU:
        common = {**common, **limits.device_fields()}
    if item.set.op == "sddmm":
        yield from _sddmm(item, seed, problem, a, threads, seconds, common, say)
    else:
        yield from _spmm(item, seed, problem, a, threads, seconds, common)


def _spmm(
    item: Item,
    seed: int,
    problem: EntryProblem,
    a: Any,
    threads: int,
    seconds: float,
    common: Mapping[str, Any],
) -> Iterator[list[Row]]:
    own = spmm.SpmmSettings(
        kernels=item.set.kernels,
        peers=item.set.peers,
        dtype=item.set.dtype,
        device=item.set.device,
        seed=seed,
        budget_s=seconds,
        rounds=item.set.rounds,
    )
    chosen, expected = select(own.kernels, own.peers, own.dtype, own.device), Expected(a)
    oracle = OracleProblem(problem)
    moved = oracle.matrix() if item.set.oracle else None
    csr = [(k, part) for k, part in chosen if part == "candidate" and k.format == "csr"]
    for n in item.ns:
        rows = spmm.measure(spmm.Group(own, chosen, problem, a, expected, n, threads, common))
        if moved is not None:
            alone = replace(own, budget_s=seconds / 4, kernels=tuple(kernel.name for kernel, _ in csr))
            group = spmm.Group(alone, csr, oracle, moved, Expected(moved), n, threads, common)
            rows += [row for row in spmm.measure(group) if row["status"] == "ok"]
        yield rows


def _sddmm(
    item: Item,
    seed: int,
    problem: EntryProblem,
    a: Any,
    threads: int,
    seconds: float,
    common: Mapping[str, Any],
    say: Say,
) -> Iterator[list[Row]]:
    chosen = sddmm.select(item.set.kernels, item.set.peers, device=item.set.device)
    for n in item.ns:
        reason = sddmm.too_much(a, n)
        if reason:
            say(f"left out: {item.entry.name} at depth {n}: {reason}")
            continue
        yield sddmm.measure(sddmm.SddmmGroup(problem, a, n, chosen, threads, seed, seconds, item.set.rounds, common))


def in_turns(items: Sequence[Item], seed: int) -> list[Item]:
    """Data sets in turn, within each its models, methods and levels in turn, within these in an order by the seed."""
    random = np.random.default_rng(seed)
    mixed = [items[place] for place in random.permutation(len(items))]
    sets = _by(mixed, lambda item: item.stratum[:2])
    return _alternate([_alternate(_by(own, lambda item: item.stratum)) for own in sets])


def _by(items: Sequence[Item], key: Callable[[Item], Any]) -> list[list[Item]]:
    found: dict[Any, list[Item]] = defaultdict(list)
    for item in items:
        found[key(item)].append(item)
    return list(found.values())


def _alternate(lists: Sequence[Sequence[Item]]) -> list[Item]:
    """The first of each, then the second of each, and so on."""
    return [item for turn in zip_longest(*lists) for item in turn if item is not None]


def needs_too_much(shape: tuple[int, int], ns: Sequence[int]) -> str | None:
    """Why dense operands and their check at the widest of these do not fit memory; None where they do."""
    rows, cols = shape
    needed = max(ns) * (8 * (rows + cols) + 24 * rows)  # both in two layouts, and three of the result's size in float64
    memory = total_bytes() or needed
    if needed <= memory / 2:
        return None
    return f"at N = {max(ns)} operands and check take {needed / 1e9:.0f} GB of {memory / 1e9:.0f}"


def read(folder: Path) -> list[Row]:
    """The rows of a folder, without a cell that was cut off while it was written.

    Raises:
        InvalidArgument: If another line is no row.
    """
    path = folder / ROWS
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if not text or text.endswith("\n"):
        return schema.read_rows(path, where="bench run") if text else []
    whole = text[: text.rfind("\n") + 1]
    _replace(path, whole)
    rows = schema.read_rows(path, where="bench run") if whole else []
    cut = _key(rows[-1]) if rows else None
    rows = [row for row in rows if _key(row) != cut]
    _replace(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows))
    return rows


def bind(threads: int) -> str | None:
    """Bind the process and the threads that it has to as many processors as `threads`, the first of those it may use.

    Threads that are made later are bound as who makes them.

    Returns:
        Their numbers, as `0-1`; None where the system has no such call.
    """
    if not hasattr(os, "sched_setaffinity"):
        return None
    mine = sorted(os.sched_getaffinity(0))[:threads]
    for thread in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # one that has just ended
            os.sched_setaffinity(int(thread.name), mine)
    return f"{mine[0]}-{mine[-1]}" if mine[-1] - mine[0] == len(mine) - 1 else ",".join(map(str, mine))


def _items(suite: Suite, say: Say) -> tuple[list[Item], int]:
    """What there is to measure here, and how many cells that is."""
    items: list[Item] = []
    for number, own in enumerate(suite.sets, 1):
        if own.dataset not in datasets.registry:
            known = ", ".join(dataset.name for dataset in datasets.registry)
            raise InvalidArgument(
                f"bench run: set {number} of {suite.name} names dataset {own.dataset!r}, which is not known; "
                f"name one of {known}."
            )
        _check_kernels(own)
        dataset = datasets.registry.get(own.dataset)
        if reason := dataset.why_not():
            say(f"left out: {own.dataset}: {reason}")
            continue
        fits = [e for e in dataset.entries() if e.nnz != 0 and any(fnmatchcase(e.name, glob) for glob in own.entries)]
        if not fits:
            raise InvalidArgument(
                f"bench run: set {number} of {suite.name} has entries {list(own.entries)}, which fit nothing in "
                f"{own.dataset}; see `zeroskip data show {own.dataset}`."
            )
        items += in_turns([Item(own, entry, own.n) for entry in fits], 0)[: own.limit]
    cells = Counter((*item.stratum[:2], item.entry.name, n) for item in items for n in item.ns)
    (op, dataset_name, name, n), times = cells.most_common(1)[0] if cells else (("", "", "", 0), 1)
    if times > 1:
        raise InvalidArgument(
            f"bench run: {suite.name} has {op} of {name} in {dataset_name} at n = {n} in {times} sets; a run knows a "
            "matrix by its name: put them into suites of their own."
        )
    if not items:
        raise InvalidArgument(f"bench run: nothing of {suite.name} is here; `zeroskip data list` says what is missing.")
    return items, sum(len(item.ns) for item in items)


def _check_kernels(own: Set) -> None:
    """Refuse names of kernels and rivals that are not known."""
    if own.op == "sddmm":
        sddmm.select(own.kernels, own.peers, device=own.device)
    else:
        select(own.kernels, own.peers, own.dtype, own.device)


def _continue(settings: RunSettings) -> list[Row]:
    """The rows that the folder has; makes it where there is none.

    Raises:
        InvalidArgument: If they are of another suite, seed or number of threads.
    """
    what = json.loads(json.dumps({**settings.suite.as_json(), "seed": settings.seed, "threads": settings.threads}))
    path = settings.out / SUITE
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"bench run: {path} cannot be read ({error}); choose another folder.") from None
        if found != what:
            raise InvalidArgument(
                f"bench run: {settings.out} holds a run of another suite, seed or number of threads; "
                "choose another folder."
            )
        return read(settings.out)
    if settings.out.exists() and (not settings.out.is_dir() or any(settings.out.iterdir())):
        raise InvalidArgument(f"bench run: {settings.out} is there and holds something else; choose another folder.")
    settings.out.mkdir(parents=True, exist_ok=True)
    _replace(path, json.dumps(what, indent=2) + "\n")
    return []


def _key(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return row["op"], row["dataset"], row["matrix"], row["n"], row["seed"]


def _without(item: Item, done: Iterable[tuple[Any, ...]]) -> Item:
    """What of an item is missing. The seed is the folder's."""
    found = {key[:4] for key in done}
    own = item.set.op, item.entry.dataset, item.entry.name
    return replace(item, ns=tuple(n for n in item.ns if (*own, n) not in found))


def _seconds(own: Set, share: float | None) -> float:
    """Of timing for a cell, from what the budget leaves it."""
    if share is None:
        return own.seconds
    return min(max(share, LEAST_S), MOST_TIMES * own.seconds)


def _replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)
