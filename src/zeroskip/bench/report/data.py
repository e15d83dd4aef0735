"""Rows as figures see them: cells of one matrix, one width and one operation, and what the best of each kind did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..summary import Cell, cells

Row = Mapping[str, Any]

# Shares of zeros, as the survey bins them: from the first up to, not including, the second.
BINS = ((0.5, 0.6), (0.6, 0.7), (0.7, 0.8), (0.8, 0.9), (0.9, 0.95), (0.95, 0.98), (0.98, 1.0))
BELOW, ABOVE = "in the last cache", "beyond it"
OURS, RIVAL, DENSE = "ours", "best sparse rival", "best dense"


@dataclass(frozen=True)
class Point:
    """One cell: a matrix at one width.

    Args:
        first: A row of it, for what they all share.
        ours: Our fastest kernel.
        rival: The fastest sparse rival, None where none ran.
        dense: The fastest dense rival, None where none ran.
        sparse: All sparse rows, ours and rivals'.
    """

    first: Row
    ours: Row | None
    rival: Row | None
    dense: Row | None
    sparse: Sequence[Row]

    @property
    def group(self) -> str:
        """What the survey calls a data set: graphs, or the name of ours."""
        return "graphs" if self.first.get("kind") == "graph" else str(self.first.get("dataset") or "random")

    @property
    def best(self) -> Row | None:
        """The fastest of all sparse ones: the survey keeps the best version too."""
        return max(self.sparse, key=lambda row: float(row["gflops"]), default=None)

    @property
    def place(self) -> str | None:
        """Whether the working set fits the last cache; None where rows do not say."""
        best = self.best
        if best is None or not best.get("working_set") or not best.get("llc"):
            return None
        return BELOW if best["working_set"] <= best["llc"] else ABOVE

    @property
    def bin(self) -> str | None:
        return bin_of(float(self.first["sparsity"]))


def bin_of(sparsity: float) -> str | None:
    """The bin of a share of zeros; None below the first."""
    for low, high in BINS:
        if low <= sparsity < high:
            return f"{low * 100:g}-{high * 100:g} %"
    return None


def points(rows: Iterable[Row], op: str) -> list[Point]:
    """The cells of an operation, those with a sparse kernel that ran."""
    found = []
    for cell in cells(row for row in rows if row["op"] == op):
        sparse = [row for row in cell.rows if row["role"] in ("candidate", "peer") and row["format"] != "dense"]
        if sparse:
            found.append(
                Point(cell.rows[0], _fastest(sparse, "candidate"), _fastest(sparse, "peer"), _dense(cell), sparse)
            )
    return found


def implementation(row: Row) -> str:
    """Who multiplied, and from which format: the survey's implementations."""
    own = "zeroskip" if row["role"] == "candidate" else str(row["origin"])
    return f"{own} {row['format']}"


def _fastest(rows: Sequence[Row], role: str) -> Row | None:
    return min((row for row in rows if row["role"] == role), key=lambda row: float(row["time_s"]), default=None)


def _dense(cell: Cell) -> Row | None:
    return cell.best_dense()
