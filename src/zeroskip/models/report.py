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
        data = f"calibration: {self.calibration} ({self.samples} sequences, {self.tokens} tokens)"
        return "\n".join([done, data, *self.notes])


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import torch

    import zeroskip

    found = {"zeroskip": zeroskip.__version__, "python": platform.python_version(), "torch": torch.__version__}
    if "transformers" in sys.modules:
        found["transformers"] = sys.modules["transformers"].__version__
    return found
