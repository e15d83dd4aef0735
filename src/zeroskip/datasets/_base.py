"""What a data set is: a name, where it comes from, and entries that give one matrix each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, runtime_checkable
from zlib import crc32

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument, MissingDependency
from .._registry import Registry
from ..formats import CSR
from ._files import Remote, absent
from .io.smtx import Structure

KINDS = ("weights", "graph", "mask", "activations")


@dataclass(frozen=True)
class Entry:
    """One matrix of a data set.

    Args:
        name: Unique in the data set, such as `transformer/magnitude_pruning/0.9/body_encoder_layer_0_...`.
        dataset: Its data set.
        kind: "weights", "graph", "mask" or "activations".
        load: Gives the matrix for a seed; a `Structure` where the source has no values. What is read from files is the
            same for every seed, what is generated is not.
        model: Of the layer that it is the weight of.
        method: How it was pruned, or what drew it.
        level: The sparsity asked for, in [0, 1).
        shape: (M, K), where that is known without loading it.
        nnz: Entries, where they are. Some pruned layers have none: there is nothing to multiply.
        path: The file, archive or folder that it is read from; None for what is generated.
    """

    name: str
    dataset: str
    kind: str
    load: Callable[[int], CSR | Structure] = field(repr=False, compare=False)
    model: str | None = None
    method: str | None = None
    level: float | None = None
    shape: tuple[int, int] | None = None
    nnz: int | None = None
    path: Path | None = None

    def matrix(self, seed: int = 0) -> CSR:
        """CSR in float32: the pattern of the source, with values drawn from the seed and the name where it has none.

        Raises:
            DamagedFile: If its file breaks a rule of its format.
            MissingDependency: If its file is not there any more.
        """
        found = self.load(seed)
        return found if isinstance(found, CSR) else with_drawn_values(found, self.name, seed)


@runtime_checkable
class Dataset(Protocol):
    """Entries under one name. `registry` has them all; one file each in this package."""

    @property
    def name(self) -> str: ...

    @property
    def title(self) -> str:
        """One line."""

    @property
    def kind(self) -> str:
        """One of `KINDS`."""

    @property
    def licence(self) -> str: ...

    @property
    def source(self) -> str | None:
        """A web address; None for what is generated."""

    @property
    def files(self) -> tuple[Remote, ...]:
        """What `zeroskip data get` can bring; none where nothing has to be brought, or no address is known."""

    def why_not(self) -> str | None:
        """Why its entries cannot be had here; None where they can."""

    def entries(self) -> list[Entry]:
        """All entries, in a fixed order. Cheap: nothing is unpacked or generated beyond an index.

        Raises:
            MissingDependency: As `why_not` says.
            DamagedFile: If the index cannot be read.
        """


@dataclass(frozen=True)
class FileSet:
    """A data set whose entries are files, those that are here.

    Args:
        index: Lists the entries that are here, without reading more than it must.
        missed: What to call its files where none is here.
    """

    name: str
    title: str
    kind: str
    licence: str
    source: str | None
    index: Callable[[], list[Entry]] = field(repr=False)
    missed: tuple[str, ...]
    files: tuple[Remote, ...] = ()

    def why_not(self) -> str | None:
        """See `Dataset`."""
        return None if self.index() else absent(*self.missed, get=self.name if self.files else None)

    def entries(self) -> list[Entry]:
        """See `Dataset`."""
        found = self.index()
        if not found:
            raise MissingDependency(f"{self.name}: {absent(*self.missed, get=self.name if self.files else None)}.")
        return found


registry: Registry[Dataset] = Registry("data set", "zeroskip.datasets")


def find(name: str) -> list[Entry]:
    """The entries that `DATASET` or `DATASET/ENTRY` names; a glob may stand for the entry.

    Raises:
        InvalidArgument: If there is no such data set or entry; names some that there are.
        MissingDependency: If the data set is not here.
    """
    from fnmatch import fnmatchcase

    dataset, _, wanted = name.partition("/")
    every = registry.get(dataset).entries()
    found = [one for one in every if not wanted or one.name == wanted or fnmatchcase(one.name, wanted)]
    if not found:
        some = ", ".join(one.name for one in every[:3]) or "nothing"
        raise InvalidArgument(f"data: {dataset} has no entry {wanted!r}; it has {len(every)}, such as {some}.")
    return found


def drawn_values(random: np.random.Generator, count: int) -> npt.NDArray[np.float32]:
    """Normal values, kept away from zero so that none vanishes when it is rounded to 16 bits."""
    values = random.standard_normal(count, dtype=np.float32)
    kept: npt.NDArray[np.float32] = np.copysign(np.maximum(np.abs(values), np.float32(1e-3)), values)
    return kept


def generator(name: str, seed: int) -> np.random.Generator:
    """The random numbers of an entry: no two names share them."""
    return np.random.default_rng([seed, crc32(name.encode())])


def with_drawn_values(found: Structure, name: str, seed: int) -> CSR:
    """A pattern as CSR, with the narrowest indices; values follow from the name and the seed."""
    index: type = np.uint16 if found.shape[1] <= 65536 else np.int32
    values = drawn_values(generator(name, seed), found.indices.size)
    return CSR(found.shape, found.indptr, found.indices.astype(index), values)


def provenance(name: str) -> dict[str, Any]:
    """Model, method and level of `model/method/level/layer`; None where a name has no such form."""
    folders = PurePosixPath(name).parent.parts
    try:
        model, method, level = folders[-3], folders[-2], float(folders[-1])
    except (IndexError, ValueError):
        return {"model": None, "method": None, "level": None}
    return {"model": model, "method": method, "level": level} if 0 <= level < 1 else provenance("")
