"""The native attention kernels: one entry for each kind of mask and instruction set.

`function(q, k, v, out, masks, scale, causal, lengths)` with q (B, H, n, d), k (B, Hkv, m, d), v (B, Hkv, m, dv) and out
(B, H, n, dv), all float32 and C-contiguous; masks a tuple of one, H or B H masks of the entry's format; lengths (B,)
int64. Every element of `out` is written and none is read.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..formats import BSR, CSR
from ._base import Float32
from ._operations import OperationKernel, operations

_native: Any = importlib.import_module("zeroskip._native")


class RuleLike(Protocol):
    """What a rule has; `ops.rules.Rule` lies above this layer."""

    @property
    def window(self) -> int | None: ...
    @property
    def dilation(self) -> int: ...
    @property
    def global_tokens(self) -> int: ...
    @property
    def causal(self) -> bool: ...


def _given(mask: CSR | BSR | RuleLike) -> tuple[Any, ...]:
    """A mask as the native module takes it."""
    if isinstance(mask, CSR):
        return ("csr", mask.indptr, mask.indices, 1, 1)
    if isinstance(mask, BSR):
        return ("bsr", mask.indptr, mask.indices, *mask.block)
    window = -1 if mask.window is None else mask.window
    return ("rule", window, mask.dilation, mask.global_tokens, mask.causal)


def _run(
    isa: str,
    q: Float32,
    k: Float32,
    v: Float32,
    out: Float32,
    masks: Sequence[CSR | BSR | RuleLike],
    scale: float,
    causal: bool,
    lengths: npt.NDArray[np.int64],
) -> None:
    _native.attention(isa, q, k, v, out, [_given(mask) for mask in masks], scale, causal, lengths)


_DOC = {
    "rule": "window, dilated, global and causal masks that are never stored",
    "csr": "masks of single entries; queries together or one by one, as their keys overlap",
    "bsr": "masks of blocks",
}

for _isa, _why in _native.attention_isas():
    for _format, _doc in _DOC.items():
        _name = f"attention_{_format}_f32_{_isa}"
        operations.add(
            _name,
            OperationKernel(
                name=_name,
                op="attention",
                format=_format,
                dtype="float32",
                isa=_isa,
                origin="native",
                function=partial(_run, _isa),
                reason=_why,
                doc=_doc,
            ),
        )
