"""From places of entries, in any order, to a pattern."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..._errors import DamagedFile
from .smtx import Structure

Int64 = npt.NDArray[np.int64]


def check_single(where: str, row: Int64, column: Int64, shape: tuple[int, int]) -> None:
    """Refuse an entry that is there twice: whether it counts once, or its values are added, only its author knows."""
    key = row * shape[1] + column
    key.sort()
    twice = np.flatnonzero(key[1:] == key[:-1])
    if twice.size:
        at = divmod(int(key[twice[0]]), shape[1])
        raise DamagedFile(
            f"{where}: row {at[0]}, column {at[1]} (from 0) is there twice, {twice.size} entries in all are there "
            "already; get the file again, or leave it out."
        )


def distinct(key: Int64) -> Int64:
    """Each value once, in order. NumPy 2.3's `unique` hashes, and takes ten times as long as sorting for 1e6 keys."""
    key = np.sort(key)
    return key[np.concatenate(([True], key[1:] != key[:-1]))] if key.size else key


def structure(shape: tuple[int, int], row: Int64, column: Int64) -> Structure:
    """The pattern of entries in any order; one that is there twice counts once."""
    key = distinct(row * shape[1] + column)
    indptr = np.zeros(shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(key // shape[1], minlength=shape[0]), out=indptr[1:])
    return Structure(shape, indptr, key % shape[1])
