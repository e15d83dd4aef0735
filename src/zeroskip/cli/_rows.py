"""What `bench spmm` and `bench sddmm` share: random problems asked for, rows on their way to a file, and failures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError

if TYPE_CHECKING:
    from ..bench.rows import Row


def random_problems(args: argparse.Namespace) -> dict[str, Any]:
    """Shapes, sparsities and the pattern of random matrices.

    Raises:
        UsageError: If a sparsity was given beside a pattern that has its own.
    """
    from ..bench.spmm import SpmmSettings
    from ..sparsify import Pattern

    default = SpmmSettings()
    asked = args.pattern or default.pattern
    implied = Pattern.parse(asked).min_sparsity
    sparsities: Sequence[float] = args.sparsity or ([implied] if implied else default.sparsities)
    if implied and any(abs(sparsity - implied) > 1e-9 for sparsity in sparsities):
        raise UsageError(f"--sparsity does not go with --pattern {asked}, which is {implied:g} sparse; leave it out.")
    return {"shapes": args.shape or default.shapes, "sparsities": sparsities, "pattern": asked}


def collect(measured: Iterable[Row], out: Path | None) -> list[Row]:
    """The rows, each written to `out` as soon as it is there."""
    if out is None:
        return list(measured)
    rows: list[Row] = []
    with open(out, "w", encoding="utf-8") as file:
        for row in measured:
            rows.append(row)
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
    return rows


def say_failed(rows: Iterable[Row], console: Console) -> None:
    """A line for each row that failed."""
    for row in rows:
        if row["status"] == "failed":
            where = row["matrix"] or f"sparsity {row['sparsity']:g}"
            console.say(f"FAILED {row['kernel']} at n = {row['n']}, {where}: {row['reason']}")
