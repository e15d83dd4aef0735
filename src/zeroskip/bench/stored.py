"""Matrices from files: `.smtx` patterns, the Deep Learning Matrix Collection among them; MatrixMarket."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from .._errors import DamagedFile, InvalidArgument
from ..datasets import Entry, provenance, with_drawn_values
from ..datasets import dlmc as collection
from ..datasets.io import read_file
from ..formats import CSR, SparseMatrix
from ..testing import with_values

PATTERN = "stored"


@dataclass(frozen=True)
class StoredProblem:
    """The matrix of a file. A pattern has no values: they are drawn, from the seed and the file's name.

    Args:
        path: The file.
        label: What rows call it; a path of three folders `model/method/level` says what it is.
        dtype: Value type.
        seed: Of the values of a pattern.
        group: Columns that share a scale, for int8 and int4; 0 for the whole row.
    """

    path: Path
    label: str
    dtype: str
    seed: int
    group: int = 0

    def check(self) -> None:
        """Refuse a file of a kind that is not known, or that `matrix` would refuse: it is read once for that.

        Raises:
            InvalidArgument: Naming the file.
            DamagedFile: As `matrix`.
        """
        if not self.path.is_file():
            raise InvalidArgument(f"bench: {self.path} is not a file; check the path.")
        self.matrix()

    def matrix(self) -> SparseMatrix:
        """CSR of the file.

        Raises:
            DamagedFile: If it breaks a rule of its format, or holds a value that is no real, finite number.
            InvalidArgument: If its values have no codes in `dtype`.
        """
        found = read_file(self.path)
        csr = found if isinstance(found, CSR) else with_drawn_values(found, self.label, self.seed)
        if csr.nnz == 0:
            raise DamagedFile(f"{self.path}: it has no entries, there is nothing to multiply; leave it out.")
        try:
            return with_values(csr, self.dtype, group=self.group)
        except InvalidArgument as error:
            raise InvalidArgument(f"bench: {self.path} cannot be {self.dtype}: {error}") from None

    def fields(self, a: SparseMatrix) -> dict[str, Any]:
        """Its name and what the folders above it say; the sparsity is its own."""
        return {"pattern": PATTERN, "sparsity": a.sparsity, "matrix": self.label, **provenance(self.label)}


@dataclass(frozen=True)
class EntryProblem:
    """An entry of a data set.

    Args:
        entry: It.
        dtype: Value type.
        seed: Of values that the source does not have, and of what is generated.
    """

    entry: Entry
    dtype: str
    seed: int

    def check(self) -> None:
        """Nothing: data sets list what is here, and reading all of one may take minutes."""

    def matrix(self) -> SparseMatrix:
        """CSR of the entry.

        Raises:
            DamagedFile: If its file breaks a rule of its format, or it has no entries.
        """
        csr = self.entry.matrix(self.seed)
        if csr.nnz == 0:
            raise DamagedFile(f"{self.entry.dataset}: {self.entry.name} has no entries, there is nothing to multiply.")
        return with_values(csr, self.dtype)

    def fields(self, a: SparseMatrix) -> dict[str, Any]:
        """Its name and all that the data set says of it; the sparsity is its own."""
        entry = self.entry
        return {
            "pattern": PATTERN,
            "sparsity": a.sparsity,
            "matrix": entry.name,
            "model": entry.model,
            "method": entry.method,
            "level": entry.level,
            "dataset": entry.dataset,
            "kind": entry.kind,
        }


@dataclass(frozen=True)
class OracleProblem:
    """A matrix with the entries of each row moved to its first columns: all rows read the same rows of B.

    What a product gains by that is what better locality could bring; it is no result of the matrix.
    """

    source: EntryProblem

    def check(self) -> None:
        """As that of the source."""

    def matrix(self) -> SparseMatrix:
        """The moved matrix, with values in the same order."""
        a = self.source.matrix()
        assert isinstance(a, CSR)
        counts = np.diff(a.indptr)
        places = np.arange(a.nnz) - np.repeat(a.indptr[:-1], counts)
        return replace(a, indices=places.astype(a.indices.dtype))

    def fields(self, a: SparseMatrix) -> dict[str, Any]:
        """Those of the source, and what it is."""
        return {**self.source.fields(a), "oracle": True}


def files(names: Sequence[str]) -> list[tuple[Path, str]]:
    """The files of `--matrix`, globs expanded, each with the label that rows carry: its path below what all share.

    Raises:
        InvalidArgument: If a name is no file and no glob that finds one.
    """
    found: dict[Path, None] = {}
    for name in names:
        hits = sorted(glob.glob(name, recursive=True)) if glob.has_magic(name) else [name]
        if not hits:
            raise InvalidArgument(f"bench: no file fits {name!r}; check the path, and quote a glob.")
        found.update(dict.fromkeys(Path(hit).resolve() for hit in hits))
    shared = Path(os.path.commonpath([path.parent for path in found]))
    return [(path, _label(path, shared)) for path in found]


def _label(path: Path, shared: Path) -> str:
    """Below `shared`, but with model, method and level where there are such folders."""
    if provenance(path.as_posix())["level"] is not None:
        return PurePosixPath(*path.parts[-4:]).as_posix()
    return path.relative_to(shared).as_posix()


def dlmc_sample(wanted: str = "*") -> list[tuple[Path, str]]:
    """The files of the collection whose `model/method/level/layer` fits a glob, each with that path.

    Some layers were pruned to nothing (variational dropout); there is no product to time, and they are left out. The
    archive is unpacked into the cache folder once.

    Raises:
        MissingDependency: If neither the collection nor a sample of it is here.
        InvalidArgument: If none fits.
    """
    found = collection.paths()
    fits = [one for one in found if fnmatchcase(one[1], wanted) or fnmatchcase(one[1], wanted.removesuffix(".smtx"))]
    chosen = [(path, label) for path, label, nnz in fits if nnz]
    if not chosen:
        example = found[0][1] if found else "nothing"
        raise InvalidArgument(f"bench: none of {len(found)} matrices fits {wanted!r}; they are called as {example}.")
    return chosen
