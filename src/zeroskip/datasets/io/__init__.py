"""Readers of matrix files that others wrote: nobody vouches for them, whatever does not add up is one clear error."""

from __future__ import annotations

from pathlib import Path

from ..._errors import InvalidArgument
from ...formats import CSR
from .matrix_market import read_matrix_market
from .smtx import Structure, format_smtx, parse_smtx, read_smtx

SUFFIXES = (".smtx", ".mtx", ".mtx.gz")

__all__ = ["SUFFIXES", "Structure", "format_smtx", "parse_smtx", "read_file", "read_matrix_market", "read_smtx"]


def read_file(path: str | Path) -> CSR | Structure:
    """The matrix of a file, by the end of its name; a `Structure` where it has no values.

    Raises:
        InvalidArgument: If the name has none of the ends that are known.
        DamagedFile: If it breaks a rule of its format.
    """
    path = Path(path)
    if path.name.endswith(".smtx"):
        return read_smtx(path)
    if path.name.endswith((".mtx", ".mtx.gz", ".tar.gz")):
        return read_matrix_market(path)
    raise InvalidArgument(f"{path} is no {', '.join(SUFFIXES)} file; pass matrices in these.")
