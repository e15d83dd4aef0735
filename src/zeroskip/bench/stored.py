"""Matrices from files: `.smtx` patterns, the sample of the Deep Learning Matrix Collection among them; MatrixMarket."""

from __future__ import annotations

import glob
import gzip
import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any
from zlib import crc32

import numpy as np

from .._errors import DamagedFile, InvalidArgument, MissingDependency, ZeroskipError
from ..datasets.text import data_dir
from ..formats import COO, CSR, SparseMatrix
from ..io.smtx import read_smtx
from ..models.packages import cache_dir
from ..testing import with_values
from .operands import drawn_values

PATTERN = "stored"
SUFFIXES = (".smtx", ".mtx", ".mtx.gz")
ARCHIVE = "dlmc/dlmc_sample.tar.xz"
# The sample has 270 files of at most 3.5 MB.
_MOST_FILES, _MOST_BYTES = 20_000, 8 * 2**30


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
        if not self.path.name.endswith(SUFFIXES):
            raise InvalidArgument(f"bench: {self.path} is no {', '.join(SUFFIXES)} file; pass matrices in these.")
        if not self.path.is_file():
            raise InvalidArgument(f"bench: {self.path} is not a file; check the path.")
        self.matrix()

    def matrix(self) -> SparseMatrix:
        """CSR of the file.

        Raises:
            DamagedFile: If it breaks a rule of its format, or holds a value that is no real, finite number.
            InvalidArgument: If its values have no codes in `dtype`.
        """
        random = np.random.default_rng([self.seed, crc32(self.label.encode())])
        if self.path.suffix == ".smtx":
            found = read_smtx(self.path)
            index = np.uint16 if found.shape[1] <= 65536 else np.int32
            values = drawn_values(random, found.indices.size)
            csr = CSR(found.shape, found.indptr, found.indices.astype(index), values)
        else:
            csr = _matrix_market(self.path, random)
        if csr.nnz == 0:
            raise DamagedFile(f"{self.path}: it has no entries, there is nothing to multiply; leave it out.")
        try:
            return with_values(csr, self.dtype, group=self.group)
        except InvalidArgument as error:
            raise InvalidArgument(f"bench: {self.path} cannot be {self.dtype}: {error}") from None

    def fields(self, a: SparseMatrix) -> dict[str, Any]:
        """Its name and what the folders above it say; the sparsity is its own."""
        return {"pattern": PATTERN, "sparsity": a.sparsity, "matrix": self.label, **provenance(self.label)}


def provenance(label: str) -> dict[str, Any]:
    """Model, method and level of `model/method/level/layer`; None where a path has no such form."""
    folders = PurePosixPath(label).parent.parts
    try:
        model, method, level = folders[-3], folders[-2], float(folders[-1])
    except (IndexError, ValueError):
        return {"model": None, "method": None, "level": None}
    return {"model": model, "method": method, "level": level} if 0 <= level < 1 else provenance("")


_FIELDS, _SYMMETRIES = ("real", "integer", "pattern"), ("general", "symmetric", "skew-symmetric")
# More rows than this want entries to explain them: a damaged number must not ask for all memory.
_MOST_ROWS, _ROWS_AN_ENTRY = 2**26, 64


def _matrix_market(path: Path, random: np.random.Generator) -> CSR:
    """Not through SciPy, whose reader can read beyond its memory where a file is damaged (found by fuzzing)."""

    def damaged(what: str) -> DamagedFile:
        return DamagedFile(f"{path}: it is no MatrixMarket file ({what}); get the file again.")

    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            head = file.readline().lower().split()
            if len(head) != 5 or head[:2] != ["%%matrixmarket", "matrix"]:
                raise damaged("its first line is not that of one")
            if head[2] != "coordinate" or head[3] not in _FIELDS or head[4] not in _SYMMETRIES:
                raise DamagedFile(
                    f"{path}: it is {' '.join(head[2:])}, only real ones in coordinates can run; leave it out."
                )
            size = next(line for line in file if line.strip() and not line.startswith("%"))
            rows, columns, entries = (int(text) for text in size.split())
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of no data
                body = np.loadtxt(file, dtype=np.float64, comments="%", ndmin=2)
    except (ValueError, OSError, EOFError, OverflowError, StopIteration, zlib.error) as error:
        raise damaged(_line(error) or "it ends too soon") from None
    pattern, width = head[3] == "pattern", 2 if head[3] == "pattern" else 3
    if not (1 <= rows < 2**31 and 1 <= columns < 2**31 and rows <= max(_MOST_ROWS, _ROWS_AN_ENTRY * entries)):
        raise damaged(f"it has {rows} rows, {columns} columns and {entries} entries")
    body = body.reshape(0, width) if body.size == 0 else body
    if body.shape != (entries, width):
        raise damaged(f"it has {body.shape[0]} lines of {body.shape[1]} numbers, not {entries} of {width}")
    places = body[:, :2]
    if entries and not ((places == np.rint(places)) & (places >= 1) & (places <= (rows, columns))).all():
        raise damaged(f"an entry lies outside of its {rows} rows and {columns} columns")
    row, column = np.ascontiguousarray(places.astype(np.int64).T) - 1
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused here
        values = drawn_values(random, entries) if pattern else body[:, 2].astype(np.float32)
    if not np.isfinite(values).all():
        entry = int(np.argmin(np.isfinite(values)))
        place = f"row {row[entry]}, column {column[entry]}"
        raise DamagedFile(f"{path}: {place} is {body[entry, 2]}, no finite float32; leave it out.")
    if head[4] != "general":
        off = row != column
        mirrored = values[off] if head[4] == "symmetric" else -values[off]
        row, column = np.concatenate([row, column[off]]), np.concatenate([column, row[off]])
        values = np.concatenate([values, mirrored])
    return CSR.from_coo(COO((rows, columns), row, column, values))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


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
    """The matrices of the sample whose `model/method/level/layer.smtx` fits a glob, each with that path.

    Some layers were pruned to nothing (variational dropout); there is no product to time, and they are left out. The
    archive is unpacked into the cache folder once.

    Raises:
        MissingDependency: If the archive is not in `ZEROSKIP_DATA_DIR`.
        InvalidArgument: If none fits.
    """
    archive = data_dir() / ARCHIVE
    if not archive.is_file():
        raise MissingDependency(f"bench: {archive} is not there; put the sample of the collection there.")
    root = cache_dir() / f"dlmc-{hashlib.sha256(archive.read_bytes()).hexdigest()[:12]}"
    if not root.is_dir():
        unpack(archive, root)
    every = sorted(path for path in root.rglob("*.smtx"))
    found = [(path, path.relative_to(root).as_posix().removeprefix("dlmc/")) for path in every]
    fits = [(path, label) for path, label in found if fnmatchcase(label, wanted)]
    chosen = [(path, label) for path, label in fits if read_smtx(path).indices.size]
    if not chosen:
        example = found[0][1] if found else "nothing"
        raise InvalidArgument(f"bench: none of {len(found)} matrices fits {wanted!r}; they are called as {example}.")
    return chosen


def unpack(archive: Path, target: Path) -> None:
    """The `.smtx` files of an archive, into a folder beside `target` that is renamed when complete.

    Raises:
        DamagedFile: If it is no archive, or has a name that leads out of the folder.
        ZeroskipError: If the disk does not take it.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".unpack-", dir=target.parent))
    except OSError as error:
        raise ZeroskipError(f"bench: cannot write to {target.parent}: {error}; set ZEROSKIP_CACHE_DIR.") from error
    try:
        _extract(archive, scratch)
        try:
            scratch.rename(target)
        except OSError:
            if not target.is_dir():  # else another process was faster, with the same content
                raise
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise DamagedFile(f"{archive}: it cannot be unpacked ({_line(error)}); get the file again.") from error
    except OSError as error:
        raise ZeroskipError(f"bench: cannot unpack to {target}: {error}; free space or check the file.") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _extract(archive: Path, folder: Path) -> None:
    """Each member by hand: only ordinary files with a name below `folder`, and not without end."""
    files, size = 0, 0
    with tarfile.open(archive) as members:
        for member in members:
            if not member.isfile() or not member.name.endswith(".smtx"):
                continue
            name = PurePosixPath(member.name)
            if name.is_absolute() or ".." in name.parts:
                raise DamagedFile(f"{archive}: member {member.name!r} leads out of the folder; get the file again.")
            files, size = files + 1, size + member.size
            source = members.extractfile(member)
            if source is None or files > _MOST_FILES or size > _MOST_BYTES:
                raise DamagedFile(f"{archive}: member {member.name!r} is one too many or too much; get the file again.")
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with source, open(place, "xb") as out:
                shutil.copyfileobj(source, out)
