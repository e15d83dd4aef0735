"""Rows in the making, whatever the operation: what all of them say, their times, and the ratios within a cell."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import machine, schema
from .timer import SETTLE_MAX_S, Samples

Row = dict[str, Any]
Float32 = npt.NDArray[np.float32]


def label_of(kernel: str, layout: str) -> str:
    """A kernel with its layout where it is not the usual one."""
    return kernel if layout == "columns" else f"{kernel} (rows)"


def new_row(**fields: Any) -> Row:
    """A row with these fields, the machine, versions and time; all others null."""
    row: Row = dict.fromkeys(schema.FIELDS)
    row.update(
        schema=schema.NAME,
        schema_version=schema.VERSION,
        oracle=False,
        settle_max_s=SETTLE_MAX_S,
        machine=machine.machine(),
        versions=machine.versions(),
        commit=machine.commit(),
        when=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    )
    row.update(fields)
    return row


def fail(row: Row, error: Exception) -> None:
    """A kernel that raised."""
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    row.update(status="failed", reason=reason, prepare_s=None)


def worst_error(out: Float32, reference: npt.NDArray[np.float64], bound: npt.NDArray[np.float64]) -> float:
    """The largest |out - reference| over the bound of its element; inf if something is not a number."""
    error = np.abs(out.astype(np.float64) - reference)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(error == 0, 0.0, error / bound)
    worst = float(share.max())
    return worst if np.isfinite(worst) else float("inf")


def fill_times(row: Row, samples: Samples, *, work: int) -> None:
    """Times of a row, and the rate of so many useful operations."""
    median = samples.median_s
    row.update(
        time_s=median,
        time_q10_s=samples.quantile(0.1),
        time_q90_s=samples.quantile(0.9),
        time_min_s=min(samples.times_s),
        samples=len(samples.times_s),
        rounds=samples.rounds,
        gflops=work / median / 1e9,
    )


def compare(rows: Sequence[Row]) -> None:
    """Fill in the ratios to the best dense product of this group on the same device; none where no dense rival ran."""
    for device in {row["device"] for row in rows}:
        _compare([row for row in rows if row["status"] == "ok" and row["device"] == device])


def _compare(timed: Sequence[Row]) -> None:
    dense = [row for row in timed if row["role"] == "dense"]
    of_torch = [row["time_s"] for row in dense if row["origin"] == "torch"]
    best = min(dense, key=lambda row: float(row["time_s"]), default=None)
    for row in timed:
        if best is not None:
            row["dense_kernel"] = label_of(best["kernel"], best["layout"])
            row["speedup"] = best["time_s"] / row["time_s"]
            gain = best["time_s"] - row["time_s"]
            row["repaid_after"] = math.ceil(row["prepare_s"] / gain) if gain > 0 else None
        if of_torch:
            row["torch_speedup"] = min(of_torch) / row["time_s"]
