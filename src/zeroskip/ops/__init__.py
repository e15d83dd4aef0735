"""Operations: what is computed, what is refused, and which kernel does it.

Each operation is one file; `reference` holds their float64 definitions and `choice` measures kernels.
"""

from . import choice, reference
from .choice import Measured
from .linear import linear
from .masked_softmax import masked_softmax
from .plan import Plan, plan
from .sddmm import sddmm
from .spmm import spmm
from .spmv import spmv

__all__ = ["Measured", "Plan", "choice", "linear", "masked_softmax", "plan", "reference", "sddmm", "spmm", "spmv"]
