"""MatrixMarket files, `.mtx` and `.mtx.gz`: real, integer and pattern matrices in coordinates, general or symmetric.

Not through SciPy, whose reader can read beyond its memory where a file is damaged (found by fuzzing).
"""

from __future__ import annotations

import contextlib
import gzip
import io
import tarfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from ..._errors import DamagedFile
from ...formats import COO, CSR
from ._entries import check_single, structure
from .smtx import Structure

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_FIELDS, _SYMMETRIES = ("real", "integer", "pattern"), ("general", "symmetric")
# More rows than this want entries to explain them: a damaged number must not ask for all memory.
_MOST_ROWS, _ROWS_AN_ENTRY = 2**26, 64


@dataclass(frozen=True)
class _Head:
    pattern: bool
    symmetric: bool
    rows: int
    columns: int
    entries: int


def read_matrix_market(path: str | Path) -> CSR | Structure:
    """The matrix of a file, float32; a `Structure` where it has no values. Symmetric ones are laid out in full.

    Raises:
        DamagedFile: If it breaks a rule of the format, has an entry twice, a value that is no finite float32, or is
            complex, skew-symmetric or dense, which nothing here can multiply.
    """
    path = Path(path)
    try:
        with _text(path) as file:
            head = _read_head(file, path)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # of no data
                body = np.loadtxt(file, dtype=np.float64, comments="%", ndmin=2)
    except (ValueError, OSError, EOFError, OverflowError, StopIteration, zlib.error, tarfile.TarError) as error:
        if isinstance(error, DamagedFile):
            raise
        raise _damaged(path, " ".join(str(error).split())[:200] or "it ends too soon") from None
    row, column = _places(path, head, body)
    values = None if head.pattern else _values(path, body, row, column)
    if head.symmetric:
        off = row != column
        row, column = np.concatenate([row, column[off]]), np.concatenate([column, row[off]])
        values = None if values is None else np.concatenate([values, values[off]])
    shape = (head.rows, head.columns)
    check_single(str(path), row, column, shape)
    if values is None:
        return structure(shape, row, column)
    return CSR.from_coo(COO(shape, row, column, values))


@contextlib.contextmanager
def _text(path: Path) -> Iterator[TextIO]:
    """The text of the file; of `NAME.tar.gz` that of `NAME/NAME.mtx` in it, as the SuiteSparse collection packs it."""
    if not path.name.endswith(".tar.gz"):
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
            yield file
        return
    name = path.name.removesuffix(".tar.gz")
    with tarfile.open(path) as archive:
        member = next((one for one in archive if one.isfile() and one.name == f"{name}/{name}.mtx"), None)
        raw = None if member is None else archive.extractfile(member)
        if raw is None:
            raise ValueError(f"there is no {name}/{name}.mtx in it")
        with io.TextIOWrapper(raw, encoding="utf-8") as file:
            yield file


def _damaged(path: Path, what: str) -> DamagedFile:
    return DamagedFile(f"{path}: it is no MatrixMarket file ({what}); get the file again.")


def _read_head(file: TextIO, path: Path) -> _Head:
    words = file.readline().lower().split()
    if len(words) != 5 or words[:2] != ["%%matrixmarket", "matrix"]:
        raise _damaged(path, "its first line is not that of one")
    if words[2] != "coordinate" or words[3] not in _FIELDS or words[4] not in _SYMMETRIES:
        raise DamagedFile(
            f"{path}: it is {' '.join(words[2:])}; only real, integer and pattern matrices in coordinates, general or "
            "symmetric, can run; leave it out."
        )
    size = next(line for line in file if line.strip() and not line.startswith("%"))
    rows, columns, entries = (int(text) for text in size.split())
    most = max(_MOST_ROWS, _ROWS_AN_ENTRY * entries)
    if not (1 <= rows < 2**31 and 1 <= columns < 2**31 and entries >= 0 and rows <= most):
        raise _damaged(path, f"it has {rows} rows, {columns} columns and {entries} entries")
    if words[4] == "symmetric" and rows != columns:
        raise _damaged(path, f"it is symmetric with {rows} rows and {columns} columns")
    return _Head(words[3] == "pattern", words[4] == "symmetric", rows, columns, entries)


def _places(path: Path, head: _Head, body: Float64) -> tuple[Int64, Int64]:
    width = 2 if head.pattern else 3
    body = body.reshape(0, width) if body.size == 0 else body
    if body.shape != (head.entries, width):
        found = f"{body.shape[0]} lines of {body.shape[1]} numbers"
        raise _damaged(path, f"it has {found}, not {head.entries} of {width}")
    places = body[:, :2]
    good = ((places == np.rint(places)) & (places >= 1) & (places <= (head.rows, head.columns))).all(axis=1)
    if not good.all():
        entry = int(np.argmin(good))
        at = ", ".join(f"{value:g}" for value in places[entry])
        raise _damaged(path, f"entry {entry} at ({at}) lies outside of its {head.rows} rows and {head.columns} columns")
    found_places: Any = np.ascontiguousarray(places.astype(np.int64).T) - 1
    return found_places[0], found_places[1]


def _values(path: Path, body: Float64, row: Int64, column: Int64) -> npt.NDArray[np.float32]:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused here
        values = body.reshape(-1, 3)[:, 2].astype(np.float32)
    if not np.isfinite(values).all():
        entry = int(np.argmin(np.isfinite(values)))
        place = f"row {row[entry]}, column {column[entry]}"
        raise DamagedFile(f"{path}: {place} is {body[entry, 2]}, no finite float32; leave it out.")
    return values
