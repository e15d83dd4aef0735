"""The plan of a compiled model: what each linear layer runs at each batch size, and why. Its report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from ..formats import GROUPS
from ..io.fields import Fields


def rounds_x_to(kernel: str) -> str:
    """What a kernel rounds x to, by its name, for it may be another machine's."""
    parts = kernel.split("_")
    if "i32acc" in parts:
        return "int8"
    if "i16acc" in parts:
        return "int16"
    return "bfloat16" if "amx" in parts and "bf16" in parts else "float32"


@dataclass(frozen=True)
class Choice:
    """What one layer runs at one batch size.

    Args:
        n: Tokens at a time that were measured.
        kernel: The kernel that runs.
        time_s: Its time, or None where nothing was measured.
        dense_kernel: The fastest dense kernel.
        dense_time_s: Its time.
        reason: Why this kernel, one line.
    """

    n: int
    kernel: str
    time_s: float | None
    dense_kernel: str | None
    dense_time_s: float | None
    reason: str

    @property
    def speedup(self) -> float | None:
        """Time of the fastest dense kernel over the time of the chosen one."""
        if not self.time_s or not self.dense_time_s:
            return None
        return self.dense_time_s / self.time_s


@dataclass(frozen=True)
class LayerPlan:
    """One linear layer of a compiled model.

    Args:
        name: The layer, named as in the model it came from.
        shape: (out_features, in_features).
        sparsity: Share of zero weights.
        format: How the file stores it: `dense` or a sparse format.
        values: Value type of the stored weights.
        nbytes: Bytes of all its packed copies in memory.
        choices: One a batch size, ascending.
        group: Columns that one scale covers, 0 for a row; None for values without scales.
    """

    name: str
    shape: tuple[int, int]
    sparsity: float
    format: str
    values: str
    nbytes: int
    choices: tuple[Choice, ...]
    group: int | None = None

    @property
    def kernels(self) -> tuple[str, ...]:
        """The kernels in use, each once."""
        return tuple(dict.fromkeys(choice.kernel for choice in self.choices))

    def as_json(self) -> dict[str, Any]:
        """As zeroskip.json holds it, and as `report(json=True)` gives it."""
        return {
            "name": self.name,
            "shape": list(self.shape),
            "sparsity": round(self.sparsity, 6),
            "format": self.format,
            "values": self.values,
            **({} if self.group is None else {"group": self.group}),
            "nbytes": self.nbytes,
            "choices": [
                {
                    "n": choice.n,
                    "kernel": choice.kernel,
                    "activations": rounds_x_to(choice.kernel),
                    "time_s": choice.time_s,
                    "dense_kernel": choice.dense_kernel,
                    "dense_time_s": choice.dense_time_s,
                    "speedup": None if choice.speedup is None else round(choice.speedup, 3),
                    "reason": choice.reason,
                }
                for choice in self.choices
            ],
        }


@dataclass(frozen=True)
class Memory:
    """Bytes of a compiled model's weights.

    Args:
        sparse: Packed weights of sparse kernels.
        dense: Packed weights of dense kernels.
        tables: Everything else: embedding tables (mapped from the file after `load`), norms, biases.
    """

    sparse: int
    dense: int
    tables: int

    @property
    def total(self) -> int:
        return self.sparse + self.dense + self.tables


def plan_from_json(where: str, items: Sequence[Any]) -> tuple[LayerPlan, ...]:
    """Read what `as_json` wrote.

    Raises:
        DamagedFile: If a field is missing or of another type.
    """
    return tuple(_layer_from(Fields(f"{where}: plan[{index}]", item)) for index, item in enumerate(items))


def _layer_from(fields: Fields) -> LayerPlan:
    shape = fields.integers("shape", low=1, limit=2)
    choices = tuple(_choice_from(item) for item in fields.children("choices"))
    sizes = [choice.n for choice in choices]
    if len(shape) != 2:
        raise fields.wrong("shape", "two sizes")
    if not choices or sizes != sorted(set(sizes)):
        raise fields.wrong("choices", "a list with ascending n")
    return LayerPlan(
        name=fields.text("name", limit=1000),
        shape=(shape[0], shape[1]),
        sparsity=fields.number("sparsity"),
        format=fields.text("format", limit=100),
        values=fields.text("values", limit=100),
        nbytes=fields.integer("nbytes", high=2**62),
        choices=choices,
        group=fields.integer("group", high=max(GROUPS)) if "group" in fields else None,
    )


def _choice_from(fields: Fields) -> Choice:
    return Choice(
        n=fields.integer("n", 1),
        kernel=fields.text("kernel", limit=200),
        time_s=fields.number("time_s") if "time_s" in fields else None,
        dense_kernel=fields.optional_text("dense_kernel"),
        dense_time_s=fields.number("dense_time_s") if "dense_time_s" in fields else None,
        reason=fields.text("reason", limit=2000),
    )


def lane_limits(sizes: Sequence[int]) -> list[int | None]:
    """The most lanes that each measured size stands for: half-way to the next by ratio; one lane is its own case."""
    limits: list[int | None] = []
    for size, above in pairwise(sizes):
        limits.append(1 if size == 1 else int((size * above) ** 0.5))
    return [*limits, None]


def report_text(
    title: str, plan: Sequence[LayerPlan], memory: Memory, machine: Mapping[str, Any], notes: Sequence[str]
) -> str:
    """The report of a compiled model: what it is, the table, its memory, and notes."""
    where = f"{machine.get('model_name', 'an unknown processor')} ({machine.get('selected', '?')}, "
    where += f"{machine.get('threads', '?')} threads)"
    whole = sum(4 * layer.shape[0] * layer.shape[1] for layer in plan)
    weights = (
        f"weights in memory: {memory.total / 1e6:.1f} MB (sparse {memory.sparse / 1e6:.1f}, "
        f"dense {memory.dense / 1e6:.1f}, other {memory.tables / 1e6:.1f}); "
        f"the linear layers as dense float32: {whole / 1e6:.1f} MB"
    )
    lines = [f"{title}, measured on {where}", "", table(plan), "", weights]
    notes = [*notes, *precision(plan)]
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def precision(plan: Sequence[LayerPlan]) -> list[str]:
    """In words, where a plan rounds more than its weights; nothing where it does not."""
    notes = []
    scaled = "bits, with a scale a token"
    for x_dtype, what in (("int8", f"8 {scaled}"), ("int16", f"16 {scaled}"), ("bfloat16", "bfloat16")):
        rounding = sum(any(rounds_x_to(choice.kernel) == x_dtype for choice in layer.choices) for layer in plan)
        if rounding:
            where = f"{rounding} of {len(plan)} linear layers round their input to {what}"
            notes.append(f"{where}; zeroskip eval --against the dense model shows what all rounding costs")
    return notes


_COLUMNS = ("layers", "shape", "sparsity", "stored as", "tokens", "kernel", "time", "dense", "speed-up", "why")


def table(plan: Iterable[LayerPlan]) -> str:
    """A table for people: layers with equal plans share a line for each batch size; the reasons follow."""
    groups: dict[Any, list[LayerPlan]] = {}
    for layer in plan:
        key = (layer.shape, round(layer.sparsity, 2), layer.format, layer.values, layer.group, layer.choices)
        groups.setdefault(key, []).append(layer)
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for layers in groups.values():
        rows.extend(_rows_of(layers))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    lines = [
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]) for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in [*widths, len("why")]))
    return "\n".join(line.rstrip() for line in lines)


def _rows_of(layers: list[LayerPlan]) -> Iterable[tuple[str, ...]]:
    first = layers[0]
    sparsity = sum(layer.sparsity for layer in layers) / len(layers)
    stored = f"{first.format} {first.values}" + (f"/{first.group}" if first.group else "")
    head = (
        group_name([layer.name for layer in layers]),
        f"{first.shape[0]}x{first.shape[1]}",
        f"{sparsity:.3f}",
        stored,
    )
    for index, choice in enumerate(first.choices):
        yield (
            *(head if index == 0 else ("", "", "", "")),
            str(choice.n),
            choice.kernel,
            _time(choice.time_s),
            _time(choice.dense_time_s),
            f"{choice.speedup:.2f}x" if choice.speedup else "-",
            choice.reason,
        )


def group_name(names: Sequence[str]) -> str:
    """`layers.0.q` and `layers.1.q` as `layers.*.q (2)`; unlike names as the first one and how many follow."""
    if len(names) == 1:
        return names[0]
    patterns = list(dict.fromkeys(re.sub(r"(?<![^.])\d+(?![^.])", "*", name) for name in names))
    shown = patterns[0] if len(patterns) <= 1 else f"{patterns[0]} and {len(patterns) - 1} more"
    return f"{shown} ({len(names)})"


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds * 1e6:.0f} us" if seconds < 1e-3 else f"{seconds * 1e3:.2f} ms"
