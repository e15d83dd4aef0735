"""What a search for the fastest model above a quality floor found, and why: kept in the model, printed, saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ...io.fields import Fields
from ..layerplan import group_name
from .allocation import Assignment, Rung, Trial


@dataclass(frozen=True)
class FloorLayer:
    """One layer: its rung, the predicted time of the rung and of the layer as given, and the predicted loss."""

    name: str
    rung: Rung
    time_s: float
    given_time_s: float
    loss: float


@dataclass(frozen=True)
class FloorTrial:
    """One model that was really made: layers changed, predicted speed-up over the model as given, measured cosine."""

    changed: int
    predicted_speedup: float
    cosine: float


@dataclass(frozen=True)
class FloorReport:
    """A search for the fastest model above a floor.

    Args:
        keep_cosine: The floor.
        cosine: Mean cosine of the embeddings of this very model to those of the model as given, on the held-back lines.
        cosine_error: Its standard error.
        lines: Held-back lines.
        calibration: Where the text came from; even paragraphs prune, odd ones are held back.
        tokens: At a time, for all times here.
        predicted_speedup, measured_speedup: Of the whole model over the model as given, compiled in float32.
        search_s: How long it took.
        why: Why this model, one line.
        layers: What was chosen.
        trials: What was tried.
    """

    keep_cosine: float
    cosine: float
    cosine_error: float
    lines: int
    calibration: str
    tokens: int
    predicted_speedup: float
    measured_speedup: float
    search_s: float
    why: str
    layers: tuple[FloorLayer, ...]
    trials: tuple[FloorTrial, ...]

    def as_json(self) -> dict[str, Any]:
        """As zeroskip.json holds it."""
        layers = [{**asdict(layer), **asdict(layer.rung)} for layer in self.layers]
        for layer in layers:
            del layer["rung"]
        return {**asdict(self), "layers": layers, "trials": [asdict(trial) for trial in self.trials]}

    @classmethod
    def from_json(cls, where: str, value: Any) -> FloorReport:
        """Read what `as_json` wrote.

        Raises:
            DamagedFile: If a field is missing or of another type.
        """
        fields = Fields(where, value)
        number, text = fields.number, fields.text
        return cls(
            keep_cosine=number("keep_cosine"),
            cosine=number("cosine"),
            cosine_error=number("cosine_error"),
            lines=fields.integer("lines"),
            calibration=text("calibration", limit=2000),
            tokens=fields.integer("tokens", 1),
            predicted_speedup=number("predicted_speedup"),
            measured_speedup=number("measured_speedup"),
            search_s=number("search_s"),
            why=text("why", limit=2000),
            layers=tuple(_layer(item) for item in fields.children("layers")),
            trials=tuple(
                FloorTrial(item.integer("changed"), item.number("predicted_speedup"), item.number("cosine"))
                for item in fields.children("trials")
            ),
        )

    def __str__(self) -> str:
        lines = [
            (
                f"quality: mean cosine {self.cosine:.4f} (+- {self.cosine_error:.4f}) to the model as given; "
                f"{self.lines} held-back lines, the floor is {self.keep_cosine:g}"
            ),
            (
                f"speed: {self.measured_speedup:.2f}x the model as given, compiled in float32 (predicted "
                f"{self.predicted_speedup:.2f}x); {self.tokens} tokens at a time"
            ),
            f"choice: {self.why}",
            "",
            *_table(self.layers),
        ]
        if self.trials:
            tried = "; ".join(
                f"{trial.predicted_speedup:.2f}x at {trial.cosine:.4f}"
                for trial in sorted(self.trials, key=lambda item: item.predicted_speedup)
            )
            lines += ["", f"tried (predicted speed, measured cosine): {tried}"]
        return "\n".join([*lines, f"text: {self.calibration}; searched for {self.search_s:.0f} s"])


def _layer(fields: Fields) -> FloorLayer:
    raw = fields.raw("prune")
    prune: float | str = fields.text("prune", limit=100) if isinstance(raw, str) else fields.number("prune")
    rung = Rung(prune, fields.text("values", limit=100), fields.text("activations", limit=100))
    return FloorLayer(
        fields.text("name", limit=1000),
        rung,
        fields.number("time_s"),
        fields.number("given_time_s"),
        fields.number("loss"),
    )


_COLUMNS = ("layers", "rung", "time", "as given", "predicted loss")


def _table(layers: Sequence[FloorLayer]) -> list[str]:
    """Layers that are called alike and have one rung on a line, times and losses added."""
    groups: dict[tuple[str, Rung], list[FloorLayer]] = {}
    for layer in layers:
        groups.setdefault((_role(layer.name), layer.rung), []).append(layer)
    rows = [_COLUMNS]
    for (_, rung), alike in sorted(groups.items(), key=lambda item: (item[0][0], str(item[0][1]))):
        total, given, loss = (
            sum(getattr(layer, field) for layer in alike) for field in ("time_s", "given_time_s", "loss")
        )
        named = group_name([layer.name for layer in alike])
        rows.append((named, str(rung), f"{total * 1e3:.2f} ms", f"{given * 1e3:.2f} ms", f"{loss:.5f}"))
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [text[0], "  ".join("-" * width for width in widths), *text[1:]]


def _role(name: str) -> str:
    """The name without the number of its block."""
    return ".".join("*" if part.isdigit() else part for part in name.split("."))


def layers_of(chosen: Assignment, given: Assignment) -> tuple[FloorLayer, ...]:
    """The chosen rungs beside the model as given."""
    return tuple(
        FloorLayer(name, option.rung, option.time_s, given[name].time_s, option.loss) for name, option in chosen.items()
    )


def trials_of(trials: Sequence[Trial], speedup: Mapping[int, float]) -> tuple[FloorTrial, ...]:
    """The trials in the order of trying; `speedup` by their place in it."""
    return tuple(
        FloorTrial(sum(not option.rung.as_given for option in trial.assignment.values()), speedup[at], 1 - trial.loss)
        for at, trial in enumerate(trials)
    )
