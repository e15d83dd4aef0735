"""Storage formats of sparse matrices. Each is one file; they convert to each other through COO only.

`registry` finds every module of this package, so a new format is one new file.
"""

from ._base import Entries, SparseMatrix, register_format, registry
from ._dtypes import DTYPES, SHORT, UNIT_ROUNDOFF, check_dtype, storage_dtype, to_bits, to_float32
from ._interchange import is_torch, like, to_numpy
from .bitmask import Bitmask
from .bsr import BSR
from .coo import COO
from .csr import CSR
from .nm import NM

__all__ = [
    "BSR",
    "COO",
    "CSR",
    "DTYPES",
    "NM",
    "SHORT",
    "UNIT_ROUNDOFF",
    "Bitmask",
    "Entries",
    "SparseMatrix",
    "check_dtype",
    "is_torch",
    "like",
    "register_format",
    "registry",
    "storage_dtype",
    "to_bits",
    "to_float32",
    "to_numpy",
]
