"""What pruning did, layer by layer."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class LayerReport:
    """One pruned layer.

    Args:
        name, shape: Dotted name; (out_features, in_features).
        sparsity: Share of entries that the mask drops.
        error: Relative error of its output on the calibration data, ||(W - W')X|| / ||WX||, before any refit;
            None where the method looks at no data.
    """

    name: str
    shape: tuple[int, int]
    sparsity: float
    error: float | None = None


@dataclass(frozen=True)
class DistillReport:
    """What a distillation did.

    Args:
        text: Where the text came from, in words, and `tokens` of it; `held_lines` paragraphs were kept out.
        teacher: The dense model.
        schedule: `gradual` or `fixed`.
        before, after: Mean cosine to the teacher on the held-back paragraphs; `before` is None where it began dense.
        steps, minutes: How long it took, over all its runs; the state of `best_step` was kept.
        device: Where.
        resumed: Whether it went on from a checkpoint.
        settings: As asked for, defaults filled in.
        history: A row each time that the held-back paragraphs were looked at.
    """

    text: str
    tokens: int
    held_lines: int
    teacher: str
    schedule: str
    before: float | None
    after: float
    steps: int
    best_step: int
    minutes: float
    device: str
    resumed: bool
    settings: dict[str, Any] = field(default_factory=dict)
    history: tuple[dict[str, float], ...] = ()

    def __str__(self) -> str:
        change = f"{self.after:.4f}" if self.before is None else f"{self.before:.4f} -> {self.after:.4f}"
        return (
            f"distilled ({self.schedule}) in {self.steps} steps, {self.minutes:.1f} min on {self.device}: mean cosine "
            f"to {self.teacher} on {self.held_lines} held-back paragraphs {change}"
        )


@dataclass(frozen=True)
class PruneReport:
    """What `prune` was asked for and what it did.

    Args:
        method, sparsity, pattern, scope, seed: As asked for, defaults filled in; `sparsity` may be a mapping of layer
            names or patterns to a sparsity or an N:M pattern each.
        refit: `block`, or `none`.
        calibration: Where the calibration data came from, in words; `none` where there was none.
        samples, tokens: How much of it.
        layers: One entry a pruned layer.
        time_s: Wall-clock time.
        notes: What the caller ought to know (defaults taken, layers that share a weight).
        versions: Of zeroskip, Python and torch.
        distilled: What the training did, where the method is `distill`.
    """

    method: str
    sparsity: float | Mapping[str, float | str]
    pattern: str
    scope: str
    seed: int
    refit: str
    calibration: str
    samples: int
    tokens: int
    layers: tuple[LayerReport, ...]
    time_s: float
    notes: tuple[str, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    distilled: DistillReport | None = None

    @property
    def achieved(self) -> float:
        """Sparsity of all pruned layers together."""
        total = sum(layer.shape[0] * layer.shape[1] for layer in self.layers)
        return sum(layer.sparsity * layer.shape[0] * layer.shape[1] for layer in self.layers) / max(total, 1)

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it; `achieved` included."""
        return {**asdict(self), "layers": [asdict(layer) for layer in self.layers], "achieved": self.achieved}

    def __str__(self) -> str:
        how = f"{self.pattern}; by layer" if isinstance(self.sparsity, Mapping) else self.pattern
        done = (
            f"pruned {len(self.layers)} layers to {self.achieved:.4f} ({how}) with {self.method}, "
            f"refit {self.refit}, in {self.time_s:.1f} s"
        )
        kind = "calibration" if self.distilled is None else "text"
        data = f"{kind}: {self.calibration} ({self.samples} sequences, {self.tokens} tokens)"
        trained = [] if self.distilled is None else [str(self.distilled)]
        return "\n".join([done, data, *trained, *self.notes])


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import torch

    import zeroskip

    found = {"zeroskip": zeroskip.__version__, "python": platform.python_version(), "torch": torch.__version__}
    if "transformers" in sys.modules:
        found["transformers"] = sys.modules["transformers"].__version__
    return found
