"""Operations: what is computed, what is refused, and which kernel does it.

Each operation is one file; `reference` holds their float64 definitions and `choice` measures kernels.
"""

from . import choice, reference
from .attention import attention
from .choice import Measured
from .linear import linear
from .masked_softmax import masked_softmax
from .plan import Plan, plan
from .rules import Rule
from .sddmm import sddmm
from .spmm import spmm
from .spmv import spmv

__all__ = [
    "Measured",
    "Plan",
    "Rule",
    "attention",
    "choice",
    "linear",
    "masked_softmax",
    "plan",
    "reference",
    "sddmm",
    "spmm",
    "spmv",
]
