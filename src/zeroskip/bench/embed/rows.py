"""Rows from turns: medians over rounds, and ratios taken inside each round, as the machine differs between rounds."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from .entries import Entry
from .schema import NAME, VERSION, check_row
from .settings import BASE, MIXED, START, EmbedSettings, batch_of

Row = dict[str, Any]
Turns = Sequence[Mapping[str, Any]]
Rounds = Mapping[int, Mapping[str, Any]]
_QUALITY = ("cosine_mean", "cosine_p10", "cosine_min", "neighbours_kept", "rank_correlation")


def make_rows(
    entries: Sequence[Entry], turns: Turns, settings: EmbedSettings, header: Mapping[str, Any], lines: int
) -> list[Row]:
    """A row for each entry, number of threads and case, each checked against the schema.

    Args:
        entries: What took part, or could not.
        turns: What was measured.
        settings: Cases and threads.
        header: `dense`, `machine`, `versions`, `commit`, `when`.
        lines: How many lines there were.
    """
    found: dict[tuple[str, int, str], dict[int, Mapping[str, Any]]] = {}
    for turn in turns:
        found.setdefault((turn["row"], turn["threads"], turn["case"]), {})[turn["round"]] = turn
    rows = []
    for entry in entries:
        for threads in settings.threads:
            wrong = _wrong(turns, entry, threads)
            for case in settings.cases:
                row = _blank(entry, threads, case, settings, header, lines)
                mine = found.get((entry.key, threads, case), {})
                if entry.status == "ok":
                    base = found.get((BASE, threads, case), {})
                    alone = found.get((entry.key, min(settings.threads), case), {})
                    _fill(row, mine, base, alone, wrong)
                check_row(row)
                rows.append(row)
    return rows


def _wrong(turns: Turns, entry: Entry, threads: int) -> str | None:
    """A wrong result of a process counts against all its figures."""
    mine = (turn for turn in turns if (turn["row"], turn["threads"]) == (entry.key, threads) and turn["reason"])
    return next((str(turn["reason"]) for turn in mine if turn["reason"].startswith("wrong result")), None)


def _blank(
    entry: Entry, threads: int, case: str, settings: EmbedSettings, header: Mapping[str, Any], lines: int
) -> Row:
    """A row without figures."""
    done = entry.status == "ok"
    quality = entry.quality or {}
    batch = None if case == START else entry.mixed_batch if case == MIXED else batch_of(case)
    return {
        "schema": NAME,
        "schema_version": VERSION,
        "row": entry.key,
        "label": entry.label,
        "engine": entry.engine,
        "engine_version": entry.version,
        "how": entry.variants[entry.variant_for(case)].how if done else None,
        "model": entry.model,
        "dense": header["dense"],
        "values": entry.values,
        "sparsity": entry.sparsity,
        "threads": threads,
        "case": case,
        "status": entry.status,
        "reason": entry.reason,
        "rounds": 0,
        "lines": lines,
        "tokens": settings.tokens,
        "batch": batch,
        **dict.fromkeys(("seconds", "sentences_per_s", "sentences_per_s_low", "sentences_per_s_high")),
        **dict.fromkeys(("p50_s", "p95_s", "ratio", "speedup", "start_s", "resident_bytes", "peak_bytes")),
        "disk_bytes": entry.disk_bytes if done else None,
        **{name: quality.get(name) for name in _QUALITY},
        **{name: header[name] for name in ("machine", "versions", "commit", "when")},
    }


def _fill(row: Row, mine: Rounds, base: Rounds, alone: Rounds, wrong: str | None) -> None:
    """Figures of a row from its rounds and those that it is compared with."""
    reason = wrong or next((turn["reason"] for turn in mine.values() if turn["reason"]), None)
    if not mine and not reason:
        reason = "not measured: the time that was given ended before"
    row["rounds"] = sum(not turn["reason"] for turn in mine.values())
    if reason:
        row.update(status="failed", reason=reason, how=None)
        return
    name = "start_s" if row["case"] == START else "seconds"
    rates = [turn["lines"] / turn["seconds"] for turn in mine.values() if "seconds" in turn]
    if rates:
        row.update(sentences_per_s=median(rates), sentences_per_s_low=min(rates), sentences_per_s_high=max(rates))
    for field in ("seconds", "p50_s", "p95_s", "start_s"):
        row[field] = _median(mine, field)
    for field in ("resident_bytes", "peak_bytes"):
        row[field] = next((turn[field] for turn in mine.values() if turn.get(field) is not None), None)
    row["ratio"] = _within(base, mine, lambda turn: turn.get(name))
    row["speedup"] = _within(alone, mine, lambda turn: turn.get(name))


def _median(turns: Rounds, field: str) -> float | None:
    values = [turn[field] for turn in turns.values() if turn.get(field) is not None]
    return median(values) if values else None


def _within(first: Rounds, second: Rounds, value: Callable[[Mapping[str, Any]], float | None]) -> float | None:
    """The median over rounds that both had of the first's value over the second's."""
    ratios = []
    for turn, item in second.items():
        over, under = value(first.get(turn, {})), value(item)
        if over and under:
            ratios.append(over / under)
    return median(ratios) if ratios else None
