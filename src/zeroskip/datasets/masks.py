"""The survey's attention masks: four kinds, three lengths, seven sparsities, each with exactly its entries."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..sparsify.attention import make
from ..sparsify.attention import registry as kinds
from ._base import Entry, registry
from ._files import Remote
from .io.smtx import Structure

KINDS = ("random", "window", "global", "bigbird")
LENGTHS = (512, 1024, 2048)
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)


def _load(kind: str, length: int, sparsity: float, seed: int) -> Structure:
    mask = make(kind, length, length, sparsity=sparsity, seed=seed)
    return Structure(mask.shape, np.asarray(mask.indptr), np.asarray(mask.indices).astype(np.int64))


@dataclass(frozen=True)
class Masks:
    """See the module; the seed draws those of random and BigBird. `zeroskip data make masks` writes them to files."""

    name: str = "masks"
    title: str = "84 attention masks: random, window, global, BigBird"
    kind: str = "mask"
    licence: str = "CC0-1.0"
    source: str | None = None
    files: tuple[Remote, ...] = ()

    def why_not(self) -> str | None:
        """See `Dataset`."""
        return None

    def entries(self) -> list[Entry]:
        """See `Dataset`. The method is the kind of the mask, the level its sparsity."""
        return [self.entry(kind, n, share) for kind in KINDS for n in LENGTHS for share in SPARSITIES]

    def entry(self, kind: str, length: int, sparsity: float) -> Entry:
        """A mask of any kind of `zeroskip.sparsify.attention`, any length and sparsity.

        Raises:
            InvalidArgument: If the kind is not known, or has no mask of this length and sparsity.
        """
        return Entry(
            f"{kind}/{length}/{sparsity}",
            self.name,
            self.kind,
            partial(_load, kind, length, sparsity),
            method=kind,
            level=sparsity,
            shape=(length, length),
            nnz=kinds.get(kind).entries(length, length, sparsity=sparsity),
        )


registry.add("masks", Masks())
