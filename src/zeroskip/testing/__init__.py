"""For tests of kernels and of whatever multiplies sparse matrices: random inputs, the cases, and the error bound."""

from .bounds import Bound, assert_close, assert_within_bound, bound, sums_of
from .cases import CASES, OWN_FORMAT, Case
from .inputs import guarded, random_dense, random_matrix, random_nm, random_vnm, with_values

__all__ = [
    "CASES",
    "OWN_FORMAT",
    "Bound",
    "Case",
    "assert_close",
    "assert_within_bound",
    "bound",
    "guarded",
    "random_dense",
    "random_matrix",
    "random_nm",
    "random_vnm",
    "sums_of",
    "with_values",
]
