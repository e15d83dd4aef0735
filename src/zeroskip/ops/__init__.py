"""Operations: what is computed, what is refused, and which kernel does it.

Each operation is one file; `reference` holds their float64 definitions and `choice` measures kernels.
"""

from . import choice, reference
from .attention import attention
from .choice import Measured
from .gat import edge_softmax, gat, sddmm_add
from .graphs import (
    Reordering,
    block_diagonal,
    from_edges,
    normalised_adjacency,
    relation_spmm,
    reorder,
)
from .gspmm import gspmm
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
    "Reordering",
    "Rule",
    "attention",
    "block_diagonal",
    "choice",
    "edge_softmax",
    "from_edges",
    "gat",
    "gspmm",
    "linear",
    "masked_softmax",
    "normalised_adjacency",
    "plan",
    "reference",
    "relation_spmm",
    "reorder",
    "sddmm",
    "sddmm_add",
    "spmm",
    "spmv",
]
