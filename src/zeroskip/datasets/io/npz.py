"""Arrays of NumPy's `.npz`, which may be cut, altered, or made to mislead; nothing in them is ever unpickled."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..._errors import DamagedFile, ZeroskipError
from ...formats import CSR
from .smtx import LIMIT_BYTES, Structure

# What NumPy and zipfile raise for such files.
UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    KeyError,
    ValueError,
    TypeError,
    IndexError,
    EOFError,
    OverflowError,
    MemoryError,
    NotImplementedError,
    RuntimeError,
    SyntaxError,
)


def read_arrays(path: str | Path, names: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
    """The arrays of these names.

    Raises:
        DamagedFile: If the file cannot be read, unpacks to too much, or lacks one.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > 2 * LIMIT_BYTES:
                raise DamagedFile(f"{path}: it unpacks to more than {2 * LIMIT_BYTES} bytes, too many for a matrix.")
        with np.load(path, allow_pickle=False) as arrays:
            if missing := [name for name in names if name not in arrays.files]:
                raise DamagedFile(f"{path}: it lacks {', '.join(missing)}; take another copy.")
            return {name: arrays[name] for name in names}
    except DamagedFile:
        raise
    except OSError as error:
        raise DamagedFile(f"{path}: it cannot be read ({error.strerror or error}); check the path.") from None
    except (ZeroskipError, *UNREADABLE) as error:
        raise DamagedFile(f"{path}: it cannot be read ({error}); take another copy.") from None


def array_names(path: str | Path) -> list[str]:
    """The names of the arrays in a file, in its order.

    Raises:
        DamagedFile: If it is no such file.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return [member.removesuffix(".npy") for member in archive.namelist()]
    except (OSError, *UNREADABLE) as error:
        raise DamagedFile(f"{path}: it cannot be read ({error}); take another copy.") from None


def structure_of(path: str | Path, shape: tuple[int, int], indptr: Any, indices: Any) -> Structure:
    """A pattern of offsets and columns that a file had; columns need not be sorted.

    Raises:
        DamagedFile: If they break a rule of CSR.
    """
    try:
        if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu" or indptr.ndim != 1 or indices.ndim != 1:
            raise ValueError("offsets and columns are no lists of whole numbers")
        offsets, columns = indptr.astype(np.int64), indices.astype(np.int64)
        if offsets.size != shape[0] + 1 or (np.diff(offsets) < 0).any() or offsets[0] or offsets[-1] != columns.size:
            raise ValueError("its row offsets do not add up")
        columns = columns[np.lexsort((columns, np.repeat(np.arange(shape[0]), np.diff(offsets))))]
        CSR(shape, offsets, columns, np.ones(columns.size, dtype=np.float32))  # its rules are those of the format
    except (ZeroskipError, *UNREADABLE) as error:
        raise DamagedFile(f"{path}: it holds no graph ({error}); take another copy.") from None
    return Structure(shape, offsets, columns)
