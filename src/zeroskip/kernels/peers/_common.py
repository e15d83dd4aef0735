"""What peers share."""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..._errors import InvalidArgument, KernelUnavailable
from ...formats import CSR, SparseMatrix
from .._base import Float32


@cache
def missing(*packages: str, pip: str | None = None) -> str | None:
    """The reason why a peer cannot run: the packages of `packages` that are not installed; None if all are.

    Args:
        packages: Names to import.
        pip: What to install, where it has another name.
    """
    absent = [name for name in packages if importlib.util.find_spec(name) is None]
    if not absent:
        return None
    verb = "is" if len(absent) == 1 else "are"
    return f"{' and '.join(absent)} {verb} not installed; pip install {pip or ' '.join(absent)}"


class CsrArrays(NamedTuple):
    """CSR with the 32-bit indices that the fast paths of other libraries ask for."""

    indptr: npt.NDArray[np.int32]
    indices: npt.NDArray[np.int32]
    data: Float32

    @property
    def nbytes(self) -> int:
        return self.indptr.nbytes + self.indices.nbytes + self.data.nbytes


def too_large(a: SparseMatrix) -> str | None:
    """The reason why `a` does not fit 32-bit indices; None if it does."""
    if max(*a.shape, a.nnz) > 2**31 - 1:
        return f"shape {a.shape} with {a.nnz} entries does not fit its 32-bit indices"
    return None


def csr_arrays(kernel: str, a: SparseMatrix) -> CsrArrays:
    """`a` as CSR with float32 values, sharing no memory with it that the library could write to."""
    reason = too_large(a)
    if reason:
        raise InvalidArgument(f"{kernel}: {reason}; split the matrix.")
    csr = a if isinstance(a, CSR) else CSR.from_coo(a.to_coo())
    return CsrArrays(csr.indptr.astype(np.int32), csr.indices.astype(np.int32), np.array(csr.decoded()))


def only_sums(kernel: str, reduce: str) -> None:
    """Refuse what a product of matrices cannot reduce by."""
    if reduce not in ("sum", "mean"):
        raise KernelUnavailable(f"{kernel}: reduce is {reduce!r}, it takes sum and mean; choose another kernel.")
