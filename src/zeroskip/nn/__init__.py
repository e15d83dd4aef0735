"""torch modules that hold a sparse matrix."""

from .linear import SparseLinear

__all__ = ["SparseLinear"]
