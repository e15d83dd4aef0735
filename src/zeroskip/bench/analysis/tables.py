"""The tables of an analysis, for the terminal and for the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..tables import table
from .breakeven import BreakEven

Doc = Mapping[str, Any]


def summary(doc: Doc) -> str:
    """A row for each shape and N; for each value type its best format, from where it wins, and what it gains."""
    return table(list(summary_rows(doc)))


def by_format(doc: Doc) -> str:
    """A row for each shape, N and format."""
    return table(list(format_rows(doc)))


def summary_rows(doc: Doc) -> Iterator[dict[str, str]]:
    for shape in doc["shapes"]:
        for size in shape["sizes"]:
            row = {**_head(doc, shape), "N": str(size["n"])}
            for value in doc["values"]:
                curve = _find(size, value, size["best"][value])
                row[value] = "no kernel" if curve is None else f"{curve['format']} {cell(curve)}"
            yield row


def format_rows(doc: Doc) -> Iterator[dict[str, str]]:
    for shape in doc["shapes"]:
        for size in shape["sizes"]:
            for form in doc["formats"]:
                row = {**_head(doc, shape), "N": str(size["n"]), "format": form}
                for value in doc["values"]:
                    curve = _find(size, value, form)
                    unfit = form in shape["unfit"]
                    row[value] = ("does not fit" if unfit else "no kernel") if curve is None else cell(curve)
                yield row


# The mark of a curve whose kernels round x, and what the legend says of it.
_ROUNDED = {"int8": (" *", "rounds x to int8, a scale for each vector."), "bfloat16": (" +", "rounds x to bfloat16.")}


def cell(curve: Mapping[str, Any]) -> str:
    """Break-even and speed-ups: `41 %: 1.2 2.9 5.1`; a mark where x is rounded."""
    found = curve["break_even"]
    even = str(BreakEven(found["kind"], found["sparsity"]))
    gains = " ".join("-" if gain is None else _gain(gain) for gain in curve["speedup"].values())
    return f"{even}: {gains}" + _ROUNDED.get(curve["x"], ("", ""))[0]


def legend(doc: Doc) -> list[str]:
    """What the cells say, and what was left out."""
    targets = "/".join(f"{100 * target:g}" for target in doc["targets"])
    roof = doc["roofline"]
    lines = [
        f"Each cell: the format, the sparsity from which it beats dense, and its speed-up at {targets} %.",
        "Dense is the fastest of our dense kernels, NumPy and torch that keeps at least as many bits of a weight.",
        (
            f"Measured peaks: {roof['read_bytes_per_s'] / 1e9:.1f} GB/s read ({roof['read_by']}), "
            f"{roof['macs_per_s'] / 1e9:.1f} billion float32 multiply-adds a second ({roof['macs_by']})."
        ),
    ]
    if any(size["cold"] for shape in doc["shapes"] for size in shape["sizes"]):
        lines.append("At N = 1 weights come from memory.")
    rounded = {curve["x"] for shape in doc["shapes"] for size in shape["sizes"] for curve in size["curves"]}
    lines += [f"{mark.strip()} {text}" for x, (mark, text) in _ROUNDED.items() if x in rounded]
    if (doc["load"] or 0) > 0.5 * doc["machine"]["cores"]:
        lines.append(f"The load average was {doc['load']:.1f} on {doc['machine']['cores']} cores: expect noise.")
    for shape in doc["shapes"]:
        name = f"{shape['m']}x{shape['k']}"
        lines += [f"{name}: no {form}, {why}." for form, why in shape["unfit"].items()]
        if not shape["complete"]:
            lines.append(f"{name}: time was up before every break-even was closed in on; --budget gives more.")
    return lines


def failure_line(shape: Mapping[str, Any], failure: Mapping[str, Any]) -> str:
    """`spmm_x at 64x64, N = 8, sparsity 0.5: wrong result ...`."""
    where = f"{failure['kernel']} at {shape['m']}x{shape['k']}"
    where += "" if failure["n"] is None else f", N = {failure['n']}"
    where += "" if failure["sparsity"] is None else f", sparsity {failure['sparsity']:g}"
    return f"{where}: {failure['reason']}"


def _head(doc: Doc, shape: Mapping[str, Any]) -> dict[str, str]:
    head = {"shape": f"{shape['m']}x{shape['k']}"}
    if doc["model"] is not None:
        head |= {"layers": str(shape["layers"]), "work": f"{shape['share']:.0%}"}
    return head


def _find(size: Mapping[str, Any], value: str, form: str | None) -> Mapping[str, Any] | None:
    return next((c for c in size["curves"] if c["dtype"] == value and c["format"] == form), None)


def _gain(value: float) -> str:
    return f"{value:.2f}" if value < 1 else f"{value:.1f}"
