"""Plain text tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from .rows import label_of
from .summary import ALLOWED, BEST_DENSE, BEST_SPARSE, cells

_NUMERIC = frozenset("0123456789.,+-x% ")


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Columns named by the keys of the first row; numbers to the right, words to the left."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    widths = [max(len(name), *(len(row[name]) for row in rows)) for name in names]
    right = [all(_looks_numeric(row[name]) for row in rows) for name in names]
    lines = [_line(names, widths, right), "  ".join("-" * width for width in widths)]
    lines += [_line([row[name] for name in names], widths, right) for row in rows]
    return "\n".join(lines)


def _looks_numeric(text: str) -> bool:
    """A number, with a short unit perhaps, or nothing."""
    head = text.split(" ")[0]
    return not head or set(head) <= _NUMERIC


def _line(cells: Iterable[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(width) if on_right else cell.ljust(width)
        for cell, width, on_right in zip(cells, widths, right, strict=True)
    ]
    return "  ".join(padded).rstrip()


def seconds(value: float | None) -> str:
    """A time with a unit that keeps it readable."""
    if value is None:
        return ""
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if value >= scale:
            return f"{value / scale:.3g} {unit}"
    return f"{value * 1e9:.3g} ns"


def megabytes(value: float | None) -> str:
    """A size in MB (10^6 bytes)."""
    return "" if value is None else f"{value / 1e6:.1f} MB" if value >= 1e5 else f"{value / 1e3:.1f} kB"


def row_groups(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    """A title and a table for each problem, fastest first, what failed or was skipped last."""

    def problem(row: Mapping[str, Any]) -> tuple[Any, ...]:
        return row["matrix"] or "", row["m"], row["k"], row["sparsity"], row["n"], row["pattern"]

    for key, found in groupby(rows, key=problem):
        group = sorted(found, key=lambda row: row["time_s"] if row["status"] == "ok" else float("inf"))
        matrix, m, k, sparsity, n, pattern = key
        first = next((row for row in group if row["status"] == "ok"), None)
        cold = ", cold weights" if first and first["cold"] else ""
        width = "depth" if group[0]["op"] == "sddmm" else "N"
        head = f"{matrix}, " if matrix else ""
        title = f"{head}{m}x{k}, {sparsity * 100:.4g} % zeros ({pattern}), {width} = {n}{cold}"
        yield title, table([_row_line(row) for row in group])


def _row_line(row: Mapping[str, Any]) -> dict[str, str]:
    done = row["status"] == "ok"
    return {
        "kernel": row["kernel"] if row["op"] == "sddmm" else label_of(row["kernel"], row["layout"]),
        "auto": {"taken": "auto", "considered": "weighed", None: ""}[row["choice"]],
        "time": seconds(row["time_s"]),
        "10..90 %": f"{seconds(row['time_q10_s'])} .. {seconds(row['time_q90_s'])}" if done else "",
        "GFLOP/s": f"{row['gflops']:.1f}" if done else "",
        "vs best dense": _ratio(row["speedup"]),
        "vs torch": _ratio(row["torch_speedup"]),
        "size": megabytes(row["nbytes"]),
        "prepare": seconds(row["prepare_s"]),
        "error/bound": f"{row['error_over_bound']:.2f}" if done else "",
        "note": "" if done else f"{row['status']}: {row['reason']}",
    }


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}x"


def spmm_files(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each stored matrix and n: our fastest kernel, what `plan` takes, and the ratios to the best rivals."""
    lines = []
    for cell in cells(row for row in rows if row["matrix"]):
        first, ours, taken, rivals = cell.rows[0], cell.ours(), cell.taken(), cell.rivals()
        line = {"matrix": first["matrix"], "shape": f"{first['m']}x{first['k']}"}
        line |= {"zeros": f"{first['sparsity'] * 100:.1f} %", "N": str(cell.n)}
        line |= {"our best": ours["kernel"] if ours else "", "time": seconds(ours["time_s"] if ours else None)}
        for name in (BEST_SPARSE, BEST_DENSE):
            line[f"vs {name}"] = _ratio(rivals[name] / ours["time_s"] if ours and name in rivals else None)
        line["auto"] = taken["kernel"] if taken else ""
        lines.append(line)
    return table(lines)


def row_ratios(summary: Mapping[str, Any]) -> str:
    """Geometric means over matrices, rivals as columns; two lines each, ours and auto."""
    found = summary["ratios"]
    single = {name for line in found for name in line["ours"] if name not in (BEST_DENSE, BEST_SPARSE)}
    columns = [*sorted(single), *(name for name in (BEST_SPARSE, BEST_DENSE) if any(name in x["ours"] for x in found))]
    several, lines = len({entry["dtype"] for entry in found}) > 1, []
    operations = len({entry["op"] for entry in found}) > 1
    for entry in found:
        level = entry["level"]
        zeros = f"{level * 100:g} %" if isinstance(level, float) else level or ""
        head = {"values": entry["dtype"]} if several else {}
        head |= {"operation": entry["op"]} if operations else {}
        head |= {"pattern": entry["method"], "zeros": zeros, "N": str(entry["n"]), "matrices": str(entry["cells"])}
        for who, word in (("ours", "our best"), ("auto", "auto")):
            if entry[who]:
                lines.append({**head, "against": word, **{name: _ratio(entry[who].get(name)) for name in columns}})
    return table(lines)


def spmm_choice(summary: Mapping[str, Any]) -> Iterator[str]:
    """Sentences about the choice; none where nothing was chosen."""
    choice, lowest = summary["choice"], summary["lowest"]
    if choice is not None:
        yield (
            f"auto takes {choice['geometric_mean']:.3f} times the best single kernel (geometric mean of "
            f"{choice['cells']} cells; {choice['total']:.3f} of all their time); {_worst(choice)}"
        )
        tenths = choice["tenths"]
        yield f"  of tenth percentiles, which load moves less: {tenths['geometric_mean']:.3f} times; {_worst(tenths)}"
    if lowest is not None:
        yield f"auto against the best dense product of the run: {_beside(lowest)}"
        yield f"  of tenth percentiles: {_beside(lowest['tenths'])}"
    if lowest is not None and lowest["weighed"] is not None:
        yield f"  against those dense products that plan weighed, ours among them: {_beside(lowest['weighed'])}"


def _worst(part: Mapping[str, Any]) -> str:
    taken, best = part["worst_kernels"]
    instead = f"{taken}, not {best}" if taken != best else taken
    return (
        f"95 % of the cells at most {part['p95']:.2f} times, at worst {part['worst']:.2f} times, at "
        f"{part['worst_cell']}: {instead}"
    )


def _beside(part: Mapping[str, Any]) -> str:
    why = f", which plan could not take ({part['not_weighed']})" if part["not_weighed"] else ""
    return (
        f"{part['ratio']:.2f} times as fast where it is slowest beside it, at {part['cell']}: {part['kernel']} against "
        f"{part['rival']}{why}; {part['below']} of {part['cells']} cells are below {ALLOWED:g}"
    )


def spmm_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """For each shape and N of random matrices, our fastest kernel against the best dense product, by sparsity."""
    rows = [row for row in rows if not row["matrix"]]
    sparsities = sorted({row["sparsity"] for row in rows})
    lines: list[dict[str, str]] = []
    for m, k, n in sorted({(row["m"], row["k"], row["n"]) for row in rows}):
        for column, what in (("torch_speedup", "torch's best dense"), ("speedup", "best dense of all")):
            line = {"shape": f"{m}x{k}", "N": str(n), "our best against": what}
            for sparsity in sparsities:
                found = [
                    row[column]
                    for row in rows
                    if (row["m"], row["k"], row["n"], row["sparsity"]) == (m, k, n, sparsity)
                    and row["role"] == "candidate"
                    and row["status"] == "ok"
                    and row[column] is not None
                ]
                line[f"{sparsity * 100:g} %"] = _ratio(max(found, default=None))
            lines.append(line)
    return table(lines)
