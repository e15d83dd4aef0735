"""`.smtx` files: the pattern of a sparse matrix without its values, as the Deep Learning Matrix Collection stores it.

Three lines of text: `rows, columns, entries`; the offset of each row, and the end; the column of each entry, row by
row. Numbers are separated by commas or blanks, and lines in front that begin with % are comments. Nobody vouches for
such a file: whatever does not add up is refused with its place.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import DamagedFile, InvalidArgument

Int64 = npt.NDArray[np.int64]

LIMIT_BYTES = 2**31
_LARGEST = 2**31 - 1
_NUMBERS = re.compile(rb"[0-9 ,\t\r]*")
_TOO_LONG = re.compile(rb"[0-9]{19}")


@dataclass(frozen=True, eq=False)
class Structure:
    """Where the entries of a matrix are.

    Args:
        shape: (M, K).
        indptr: Row offsets, M + 1.
        indices: Columns, increasing within each row.
    """

    shape: tuple[int, int]
    indptr: Int64
    indices: Int64


@dataclass(frozen=True)
class _Line:
    """A line that holds numbers, with its number in the file."""

    where: str
    text: bytes

    def numbers(self, what: str) -> Int64:
        if not _NUMBERS.fullmatch(self.text) or _TOO_LONG.search(self.text):
            raise DamagedFile(f"{self.where}: {what} must be whole numbers, something else is there; {_MEND}.")
        return np.fromstring(self.text.replace(b",", b" ").decode("ascii"), dtype=np.int64, sep=" ")


_MEND = "get the file again"


def read_smtx(path: str | Path) -> Structure:
    """The pattern that a `.smtx` file holds.

    Raises:
        DamagedFile: If it cannot be read, is cut off, or its numbers contradict each other; names file, line and place.
    """
    path = Path(path)
    try:
        if path.stat().st_size > LIMIT_BYTES:
            raise DamagedFile(f"{path}: it has more than {LIMIT_BYTES} bytes, too many for a matrix; {_MEND}.")
        text = path.read_bytes()
    except OSError as error:
        raise DamagedFile(f"{path}: it cannot be read ({error.strerror}); check the path.") from None
    return parse_smtx(text, str(path))


def parse_smtx(text: bytes, where: str) -> Structure:
    """The pattern in the bytes of a `.smtx` file; `where` is what messages call it.

    Raises:
        DamagedFile: As `read_smtx`.
    """
    lines = [_Line(f"{where}, line {number}", line) for number, line in enumerate(text.split(b"\n"), 1)]
    begin = next((place for place, line in enumerate(lines) if not line.text.startswith(b"%")), 0)
    header, *rest = lines[begin:]
    shape, nnz = _sizes(header)
    if not rest or not rest[0].text.strip():
        raise DamagedFile(f"{where}: it ends before the row offsets; {_MEND}.")
    indptr = _offsets(rest[0], shape[0], nnz)
    if len(rest) < 2 and nnz:
        raise DamagedFile(f"{where}: it ends before the column indices; {_MEND}.")
    indices = _columns(rest[1], indptr, shape[1], nnz) if len(rest) > 1 else np.zeros(0, dtype=np.int64)
    for line in rest[2:]:
        if line.text.strip():
            raise DamagedFile(f"{line.where}: there is more text behind the column indices; {_MEND}.")
    return Structure(shape, indptr, indices)


def read_head(text: bytes, where: str) -> tuple[tuple[int, int], int]:
    """Shape and entries, from the first bytes of a `.smtx` file.

    Raises:
        DamagedFile: If no header is among them.
    """
    lines = (_Line(f"{where}, line {number}", line) for number, line in enumerate(text.split(b"\n"), 1))
    return _sizes(next((line for line in lines if not line.text.startswith(b"%")), _Line(where, b"")))


def format_smtx(shape: tuple[int, int], indptr: npt.NDArray[Any], indices: npt.NDArray[Any]) -> bytes:
    """The bytes of a `.smtx` file, laid out as in the collection: commas in the header, blanks below it.

    Args:
        shape: (M, K).
        indptr: Row offsets, M + 1.
        indices: Columns, increasing within each row.
    Raises:
        InvalidArgument: If readers would refuse it for its size.
    """
    nnz = int(indptr[-1])
    if max(*shape, nnz) > _LARGEST:
        raise InvalidArgument(
            f"smtx: the matrix is {shape[0]} x {shape[1]} with {nnz} entries, such a file has at most {_LARGEST} of "
            "each; write a rule, or a smaller matrix."
        )
    lines = (f"{shape[0]}, {shape[1]}, {nnz}".encode("ascii"), _digits(indptr), _digits(indices), b"")
    text = b"\n".join(lines)
    if len(text) > LIMIT_BYTES:
        raise InvalidArgument(
            f"smtx: the file would have {len(text)} bytes, more than the {LIMIT_BYTES} that are read; write a rule."
        )
    return text


def _digits(numbers: npt.NDArray[Any]) -> bytes:
    """Whole numbers with blanks between them; a million at a time, Python's own take a lot of memory."""
    parts = (numbers[begin : begin + 2**20].tolist() for begin in range(0, numbers.size, 2**20))
    return b" ".join(" ".join(map(str, part)).encode("ascii") for part in parts)


def _sizes(line: _Line) -> tuple[tuple[int, int], int]:
    found = [int(number) for number in line.numbers("the header")]
    if len(found) != 3:
        raise DamagedFile(f"{line.where}: the header has {len(found)} numbers, not rows, columns and entries; {_MEND}.")
    rows, columns, nnz = found
    if not (0 < rows <= _LARGEST and 0 < columns <= _LARGEST and nnz <= min(rows * columns, _LARGEST)):
        raise DamagedFile(
            f"{line.where}: the header says {rows} x {columns} with {nnz} entries, sizes lie in [1, {_LARGEST}] and "
            f"entries are at most rows times columns; {_MEND}."
        )
    return (rows, columns), nnz


def _offsets(line: _Line, rows: int, nnz: int) -> Int64:
    found = line.numbers("the row offsets")
    if found.size != rows + 1:
        raise DamagedFile(f"{line.where}: there are {found.size} row offsets, {rows} rows have {rows + 1}; {_MEND}.")
    if found[0] != 0 or found[-1] != nnz:
        raise DamagedFile(
            f"{line.where}: the row offsets go from {found[0]} to {found[-1]}, with {nnz} entries they go from 0 to "
            f"{nnz}; {_MEND}."
        )
    down = np.flatnonzero(np.diff(found) < 0)
    if down.size:
        row = int(down[0])
        raise DamagedFile(f"{line.where}: row {row} begins at {found[row]} and ends at {found[row + 1]}; {_MEND}.")
    return found


def _columns(line: _Line, indptr: Int64, columns: int, nnz: int) -> Int64:
    found = line.numbers("the column indices")
    if found.size != nnz:
        raise DamagedFile(f"{line.where}: there are {found.size} column indices, the header says {nnz}; {_MEND}.")
    outside = np.flatnonzero(found >= columns)
    if outside.size:
        entry = int(outside[0])
        raise DamagedFile(
            f"{line.where}: entry {entry}, of row {_row_of(entry, indptr)}, has column {found[entry]}, there are "
            f"{columns} columns, from 0; {_MEND}."
        )
    step = np.diff(found)
    starts = indptr[1:-1]
    step[starts[(starts > 0) & (starts < nnz)] - 1] = 1  # from one row to the next it may go anywhere
    wrong = np.flatnonzero(step <= 0)
    if wrong.size:
        entry = int(wrong[0]) + 1
        rule = "is there twice" if step[entry - 1] == 0 else f"follows column {found[entry - 1]}, they must increase"
        raise DamagedFile(f"{line.where}: column {found[entry]} of row {_row_of(entry, indptr)} {rule}; {_MEND}.")
    return found


def _row_of(entry: int, indptr: Int64) -> int:
    return int(np.searchsorted(indptr, entry, side="right")) - 1
