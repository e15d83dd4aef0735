"""One engine that is compared: how it is started, what it is checked against, and what its vectors are worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

CHECK_LINES = 32
EXACT = 0.9999


@dataclass(frozen=True)
class Variant:
    """One way to run an engine.

    Args:
        how: In words, for the tables.
        spec: What its worker loads; `threads` is put in later.
        files: What must be on disk to run it.
    """

    how: str
    spec: Mapping[str, Any]
    files: Sequence[str]


@dataclass(frozen=True)
class Entry:
    """A row of the comparison, before any figure.

    Args:
        key: Its name in the rows, unique.
        label: For people.
        engine: A name of `settings.ENGINES`.
        worker: The engine's name in the worker.
        values: Value type of the weights.
        model: The compiled folder's name; None for the dense model.
        sparsity: Share of zeros in its linear layers; None where not known.
        status: `ok`, `failed` or `missing`.
        reason: Why it is not ok.
        variants: Ways to run it, the best first.
        single, batch: The variant for one text at a time, and for many.
        mixed_batch: Batch size for all lines at once.
        expected: A file of vectors of the first lines; empty: its own, once it has made some.
        limit: The smallest cosine to them.
        python: The interpreter; None for this one.
        version: Of the engine.
        disk_bytes: Of the files of its batch variant.
        quality: Against the dense model in torch: `cosine_mean`, `cosine_p10`, `cosine_min`, `neighbours_kept`,
            `rank_correlation`.
        considered: What a trial found of each variant.
    """

    key: str
    label: str
    engine: str
    worker: str
    values: str = "float32"
    model: str | None = None
    sparsity: float | None = None
    status: str = "ok"
    reason: str | None = None
    variants: Sequence[Variant] = ()
    single: int = 0
    batch: int = 0
    mixed_batch: int = 32
    expected: str = ""
    limit: float = EXACT
    python: str | None = None
    version: str | None = None
    disk_bytes: int | None = None
    quality: Mapping[str, float] | None = None
    considered: Sequence[Mapping[str, Any]] = field(default_factory=tuple)

    def without(self, status: str, reason: str) -> Entry:
        """The same, not measured."""
        return replace(self, status=status, reason=" ".join(reason.split())[:300])

    def variant_for(self, case: str) -> int:
        """Which variant runs a case; a start is that of the one that serves single texts."""
        return self.single if case in ("single", "batch1", "start") else self.batch

    def as_json(self) -> dict[str, Any]:
        """As prepared.json holds it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Entry:
        """Read what `as_json` wrote."""
        variants = tuple(Variant(**item) for item in value["variants"])
        return cls(**{**value, "variants": variants})


def variant(how: str, spec: Mapping[str, Any], files: Sequence[Path]) -> Variant:
    """A variant with its files as text."""
    return Variant(how, spec, tuple(map(str, files)))
