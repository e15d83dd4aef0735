"""How alike two runs of one suite are: what repeating it changes, or what a change of the code did."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .rows import label_of
from .summary import MEDIAN, TENTH, Cell, cells

Row = Mapping[str, Any]

MOVED = 0.2
_OF_A_PRODUCT = ("op", "dataset", "matrix", "m", "k", "sparsity", "pattern", "n", "seed", "threads", "device")


def ratios(rows: Iterable[Row], by: str = MEDIAN) -> dict[tuple[Any, ...], float]:
    """Of each kernel in each cell: the time of the baseline over its own, `by` a field of times.

    The baseline is the best dense product, or where there is none our fastest kernel; it has no ratio itself.
    """
    found = {}
    for cell in cells(rows):
        base = cell.best_dense() or cell.ours()
        if base is None:
            continue
        for row in cell.rows:
            if row is not base:
                found[_key(cell, row)] = float(base[by]) / float(row[by])
    return found


def compare(first: Sequence[Row], second: Sequence[Row]) -> dict[str, Any]:
    """How the ratios of the second run differ from those of the first, JSON-able.

    Returns:
        `pairs` that both have, `only_first`, `only_second`; `median`, `p90` of |second / first - 1|, `drift`, the
        median of second / first; `tenths`, the median where times are tenth percentiles, which load moves less;
        `moved`, those that differ by more than a fifth, farthest first.
    """
    a, b = ratios(first), ratios(second)
    both = sorted(a.keys() & b.keys(), key=str)
    changes = {key: b[key] / a[key] - 1 for key in both}
    sizes = sorted(map(abs, changes.values()))
    early, late = ratios(first, TENTH), ratios(second, TENTH)
    tenths = [abs(late[key] / early[key] - 1) for key in both if key in early and key in late]
    moved = sorted((key for key in both if abs(changes[key]) > MOVED), key=lambda key: -abs(changes[key]))
    return {
        "pairs": len(both),
        "only_first": len(a.keys() - b.keys()),
        "only_second": len(b.keys() - a.keys()),
        "median": statistics.median(sizes) if sizes else None,
        "p90": sizes[int(0.9 * (len(sizes) - 1))] if sizes else None,
        "tenths": statistics.median(tenths) if tenths else None,
        "drift": 1 + statistics.median(changes.values()) if sizes else None,
        "moved": [{"cell": key[0], "kernel": key[1], "first": a[key], "second": b[key]} for key in moved],
    }


def _key(cell: Cell, row: Row) -> tuple[Any, ...]:
    return cell.name, label_of(row["kernel"], row["layout"]), *(row.get(name) for name in _OF_A_PRODUCT)
