"""Who is beaten by whom: a row is on the front of a measure where no other is as good and as close to dense."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..drawing import number

Row = Mapping[str, Any]

# Smaller divergences from the dense model are of the order of float32's own rounding, and count as equal.
LEAST_KL = 1e-4
# A lead below this is noise.
TIE = 1.03


@dataclass(frozen=True)
class Measure:
    """What rows are judged by, beside their divergence from the dense model.

    Args:
        key: A short name.
        title: For people.
        unit: Of `value`.
        value: Of a row; None where it has none.
        more: Whether more is better.
    """

    key: str
    title: str
    unit: str
    value: Callable[[Row], float | None]
    more: bool = True

    def better(self, one: float, other: float) -> bool:
        """Whether the first is better."""
        return one > other if self.more else one < other


def divergence(row: Row) -> float:
    """From the dense model, in nats a prediction."""
    return max(float(row["kl"]), LEAST_KL)


def measures(rows: Sequence[Row]) -> list[Measure]:
    """The first token, decoding with each number of sequences, size."""
    batches = sorted({int(batch) for row in rows for batch in row["decode_tokens_per_s"]})

    def rate(batch: int) -> Callable[[Row], float | None]:
        return lambda row: row["decode_tokens_per_s"].get(str(batch))

    def decoding(batch: int) -> str:
        return "Decoding one sequence" if batch == 1 else f"Decoding {batch} sequences at a time"

    return [
        *(Measure(f"decode{batch}", decoding(batch), "tokens/s", rate(batch)) for batch in batches),
        Measure("first", "Time to the first token", "s", lambda row: row["first_token_s"], more=False),
        Measure("bits", "Size", "bits a weight", lambda row: row["bits_per_weight"], more=False),
    ]


def front(rows: Sequence[Row], measure: Measure) -> list[Row]:
    """Rows that none beats, the closest to dense first."""
    able = [row for row in rows if row["kl"] is not None and measure.value(row) is not None]
    found: list[Row] = []
    for row in able:
        value = measure.value(row)
        assert value is not None
        if not any(_beats(other, divergence(row), value, measure) for other in able if other is not row):
            found.append(row)
    return sorted(found, key=divergence)


def _beats(other: Row, kl: float, value: float, measure: Measure) -> bool:
    """Whether a row is as close and, but for noise, as good, and one of both is better."""
    theirs = measure.value(other)
    assert theirs is not None
    if divergence(other) > kl or measure.better(value, theirs * TIE if measure.more else theirs / TIE):
        return False
    return bool(divergence(other) < kl or measure.better(theirs, value))


def verdicts(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What sparsity is worth by each measure: whether a sparse row is on the front, or who beats the best of them.

    Returns:
        For each measure `title`, `won` and `text`; nothing where there is no sparse row.
    """
    found = []
    for measure in measures(rows):
        able = [row for row in rows if row["kl"] is not None and measure.value(row) is not None]
        sparse = [row for row in able if row["sparsity"] > 0.05]
        if not sparse:
            continue
        ahead = [row for row in front(able, measure) if row in sparse]
        if ahead:
            names = "; ".join(_said(row, measure) for row in ahead)
            text = (
                f"on the front, at this quality: nothing measured is as close to the dense model and as good as {names}"
            )
        else:
            best = min(sparse, key=lambda row: (-1 if measure.more else 1) * float(measure.value(row) or 0))
            value = float(measure.value(best) or 0)
            beaters = [row for row in able if row not in sparse and _beats(row, divergence(best), value, measure)]
            rivals = beaters or front(able, measure)
            rival = min(rivals, key=lambda row: (-1 if measure.more else 1) * float(measure.value(row) or 0))
            text = f"beaten: {_said(best, measure)} by {_said(rival, measure)}"
        found.append({"title": measure.title, "won": bool(ahead), "text": text})
    return found


def _said(row: Row, measure: Measure) -> str:
    value = measure.value(row)
    assert value is not None
    quality = f"perplexity {row['perplexity']:.1f}, divergence {row['kl']:.2g}"
    return f"{row['label']} ({number(value)} {measure.unit}, {quality})"
