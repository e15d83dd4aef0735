"""Rows from turns: medians over rounds, and ratios taken inside each round, as the machine differs between rounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from .entries import Entry
from .schema import NAME, VERSION, check_row
from .settings import BASE, ModelSettings

Row = dict[str, Any]
Turns = Sequence[Mapping[str, Any]]
Rounds = Mapping[int, Mapping[str, Any]]
FIRST = "first"


def make_rows(entries: Sequence[Entry], turns: Turns, settings: ModelSettings, header: Mapping[str, Any]) -> list[Row]:
    """A row for each entry, checked against the schema.

    Args:
        entries: What took part, or could not.
        turns: What was measured.
        settings: Sizes and threads.
        header: `model`, `parameters`, `machine`, `versions`, `commit`, `when`.
    """
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for turn in turns:
        found.setdefault(turn["row"], {})[turn["round"]] = turn
    rows = []
    for entry in entries:
        row = _blank(entry, settings, header)
        if entry.status == "ok":
            _fill(row, found.get(entry.key, {}), found.get(BASE, {}), settings.batches)
        check_row(row)
        rows.append(row)
    return rows


def times(turn: Mapping[str, Any]) -> dict[str, float]:
    """Seconds of a turn: to the first token, and of a step of each number of sequences; none where it failed."""
    if turn.get("reason") or "first_s" not in turn:
        return {}
    return {FIRST: median(turn["first_s"]), **{batch: median(steps) for batch, steps in turn["decode_s"].items()}}


def _blank(entry: Entry, settings: ModelSettings, header: Mapping[str, Any]) -> Row:
    """A row without figures."""
    bits = None if entry.disk_bytes is None else 8 * entry.disk_bytes / header["parameters"]
    return {
        "schema": NAME,
        "schema_version": VERSION,
        "row": entry.key,
        "label": entry.label,
        "model": header["model"],
        "engine": entry.engine,
        "engine_version": None,
        "how": entry.how,
        "values": entry.values,
        "sparsity": entry.sparsity,
        "layers": entry.layers,
        "threads": settings.threads,
        "status": entry.status,
        "reason": entry.reason,
        "rounds": 0,
        "prompt": settings.prompt,
        "context": settings.context,
        "steps": settings.steps,
        "disk_bytes": entry.disk_bytes,
        "bits_per_weight": None if bits is None else round(bits, 3),
        **dict.fromkeys(("resident_bytes", "peak_bytes", "load_s", "first_token_s")),
        "decode_tokens_per_s": {},
        "ratio": {},
        **dict.fromkeys(("perplexity", "kl", "top1", "predictions")),
        **{name: header[name] for name in ("machine", "versions", "commit", "when")},
    }


def _fill(row: Row, mine: Rounds, base: Rounds, batches: Sequence[int]) -> None:
    """Figures of a row from its rounds and those that it is compared with."""
    reason = next((turn["reason"] for turn in mine.values() if turn["reason"]), None)
    if not mine:
        reason = "not measured: the time that was given ended before"
    row["rounds"] = sum(not turn["reason"] for turn in mine.values())
    if reason:
        row.update(status="failed", reason=reason)
        return
    timed = {turn: times(item) for turn, item in mine.items()}
    against = {turn: times(item) for turn, item in base.items()}
    row["first_token_s"] = median(item[FIRST] for item in timed.values())
    row["decode_tokens_per_s"] = {
        str(batch): batch / median(item[str(batch)] for item in timed.values()) for batch in batches
    }
    for name in (FIRST, *map(str, batches)):
        ratios = [against[turn][name] / item[name] for turn, item in timed.items() if name in against.get(turn, {})]
        if ratios:
            row["ratio"][name] = median(ratios)
    row["load_s"] = median(turn["load_s"] for turn in mine.values())
    for field in ("resident_bytes", "peak_bytes"):
        known = [turn[field] for turn in mine.values() if turn.get(field) is not None]
        row[field] = int(median(known)) if known else None
    row["engine_version"] = next((turn["version"] for turn in mine.values()), None)
    row.update(next((turn["quality"] for turn in mine.values() if "quality" in turn), {}))
