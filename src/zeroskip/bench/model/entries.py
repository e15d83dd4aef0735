"""One way to run the model: how its engine is started, what it is checked against, what is on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

# Mean divergence from torch that each arithmetic may have, in nats a prediction: many times what was seen on SmolLM2,
# far below what a wrong kernel gives.
MOST_KL: Mapping[str, float] = {"float32": 1e-3, "float16": 5e-3, "bfloat16": 0.1, "int8": 0.5, "int4": 1.5}


@dataclass(frozen=True)
class Entry:
    """A row of the comparison, before any figure.

    Args:
        key: Its name in the rows, unique: engine:values, and of ours what was taken away.
        label: For people.
        engine: A name of `settings.ENGINES`.
        values: Value type of the weights.
        how: What was done to the model, and how it runs.
        sparsity: Share of zeros in its linear layers.
        layers: Blocks that it has.
        spec: What the worker loads.
        files: What must be on disk to run it.
        disk_bytes: Of these.
        expected: A file of logits of the first tokens, by torch on the same weights.
        most_kl: The largest mean divergence from them.
        status: `ok`, `failed` or `missing`.
        reason: Why it is not ok.
    """

    key: str
    label: str
    engine: str
    values: str
    how: str
    sparsity: float = 0.0
    layers: int = 0
    spec: Mapping[str, Any] | None = None
    files: Sequence[str] = ()
    disk_bytes: int | None = None
    expected: str | None = None
    most_kl: float = MOST_KL["float32"]
    status: str = "ok"
    reason: str | None = None

    def without(self, status: str, reason: str) -> Entry:
        """The same, not measured."""
        return replace(self, status=status, reason=" ".join(reason.split())[:300])

    def as_json(self) -> dict[str, Any]:
        """As a file holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Entry:
        """Read what `as_json` wrote."""
        return cls(**{**value, "files": tuple(value["files"])})
