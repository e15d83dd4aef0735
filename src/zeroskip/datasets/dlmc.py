"""The Deep Learning Matrix Collection: pruned layers of a Transformer and of ResNet-50, patterns without values.

Source: Gale et al., "Sparse GPU Kernels for Deep Learning", SC 2020. The tarball, its tree where somebody has unpacked
it, or a sample of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ._archive import Member, folder_of, members
from ._base import Entry, provenance, registry
from ._files import Remote, absent, locate, require
from .io.smtx import Structure, read_smtx

PLACES = ("dlmc/dlmc.tar.gz", "dlmc/dlmc", "dlmc/dlmc_sample.tar.xz")
SUFFIX = ".smtx"


@dataclass(frozen=True)
class DLMC:
    """See the module."""

    name: str = "dlmc"
    title: str = "Deep Learning Matrix Collection: pruned layers of a Transformer and ResNet-50"
    kind: str = "weights"
    licence: str = "CC-BY-4.0"
    source: str | None = "https://github.com/google-research/google-research/tree/master/sgk"
    files: tuple[Remote, ...] = (Remote("dlmc/dlmc.tar.gz", "https://storage.googleapis.com/sgk-sc2020/dlmc.tar.gz"),)

    def why_not(self) -> str | None:
        """See `Dataset`."""
        return None if locate(*PLACES) else absent(*PLACES, get=self.name)

    def entries(self) -> list[Entry]:
        """See `Dataset`. The level of a name is what was asked for; some layers were pruned to nothing."""
        source = require(self.name, *PLACES, get=self.name)
        return [self._entry(source, member) for member in members(source)]

    def _entry(self, source: Path, member: Member) -> Entry:
        name = _name(member)

        def load(_seed: int) -> Structure:
            return read_smtx(folder_of(source) / member.name)

        return Entry(
            name, self.name, self.kind, load, **provenance(name), shape=member.shape, nnz=member.nnz, path=source
        )


def paths() -> list[tuple[Path, str, int]]:
    """The file of each matrix, its name, and its entries; an archive is unpacked into the cache folder once.

    Raises:
        MissingDependency: If the collection is not here.
    """
    source = require("dlmc", *PLACES, get="dlmc")
    root = folder_of(source)
    return [(root / one.name, _name(one), one.nnz) for one in members(source)]


def _name(member: Member) -> str:
    return member.name.removeprefix("dlmc/").removesuffix(SUFFIX)


registry.add("dlmc", DLMC())
