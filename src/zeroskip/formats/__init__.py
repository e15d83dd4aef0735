"""Storage formats of sparse matrices. Each is one file; they convert to each other through COO only.

`registry` finds every module of this package, so a new format is one new file.
"""

from ._base import Entries, SparseMatrix, register_format, registry
from ._dtypes import (
    DTYPES,
    FLOATS,
    INTEGERS,
    SHORT,
    UNIT_ROUNDOFF,
    check_dtype,
    check_floating,
    storage_dtype,
    to_bits,
    to_float32,
    value_bytes,
)
from ._interchange import is_torch, like, to_numpy
from ._positions import pack_positions, position_bits, unpack_positions
from ._scales import CODES, GROUPS, Scales, check_group, grid_shape, pack_nibbles, unpack_nibbles
from .bitmask import Bitmask
from .bsr import BSR
from .coo import COO
from .csc import CSC
from .csr import CSR
from .dense import DenseMatrix, dense_codes
from .dia import DIA
from .ell import ELL
from .nm import NM
from .sell import SELL
from .vnm import VNM

__all__ = [
    "BSR",
    "CODES",
    "COO",
    "CSC",
    "CSR",
    "DIA",
    "DTYPES",
    "ELL",
    "FLOATS",
    "GROUPS",
    "INTEGERS",
    "NM",
    "SELL",
    "SHORT",
    "UNIT_ROUNDOFF",
    "VNM",
    "Bitmask",
    "DenseMatrix",
    "Entries",
    "Scales",
    "SparseMatrix",
    "check_dtype",
    "check_floating",
    "check_group",
    "dense_codes",
    "grid_shape",
    "is_torch",
    "like",
    "pack_nibbles",
    "pack_positions",
    "position_bits",
    "register_format",
    "registry",
    "storage_dtype",
    "to_bits",
    "to_float32",
    "to_numpy",
    "unpack_nibbles",
    "unpack_positions",
    "value_bytes",
]
