"""What `bench spmm` and `bench sddmm` share: how to measure, random problems, rows on their way to a file, failures."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._console import Console, UsageError
from ._options import add_threads, not_negative, positive

if TYPE_CHECKING:
    from ..bench.rows import Row


def add_how(parser: argparse.ArgumentParser, budget_s: float) -> None:
    """How long to measure, with how many threads, and where rows go."""
    how = parser.add_argument_group("how")
    add_threads(how)
    how.add_argument(
        "--budget",
        type=not_negative,
        default=budget_s,
        metavar="S",
        help=f"seconds of timing per problem ({budget_s:g})",
    )
    how.add_argument("--rounds", type=positive, default=7, metavar="N", help="slices a kernel gets of it, in turn (7)")
    how.add_argument(
        "--out", type=Path, metavar="FILE", help="write rows to FILE as JSON lines, each as soon as it is there"
    )


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
