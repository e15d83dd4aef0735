"""torch's scaled dot product attention on the CPU over a dense mask, which is what there is without sparse kernels; and
FlexAttention, which skips blocks of a mask and is compiled for each kind of mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import Float32
from .._masks import dense_mask
from .._operations import OperationKernel, operations
from ._common import missing
from .torch_dense import tensor_of


def _seen(
    q: Float32,
    k: Float32,
    v: Float32,
    out: Float32,
    masks: Sequence[Any],
    causal: bool,
    lengths: npt.NDArray[np.int64],
) -> Any:
    """The mask as torch takes it; None where there is nothing to attend to, and `out` is zero."""
    import torch

    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    if min(q.size, k.size, v.size) == 0:
        out[...] = 0.0
        return None
    return torch.from_numpy(dense_mask(masks, batch, heads, queries, keys, causal=causal, lengths=lengths))


def _dense(
    q: Float32,
    k: Float32,
    v: Float32,
    out: Float32,
    masks: Sequence[Any],
    scale: float,
    causal: bool,
    lengths: npt.NDArray[np.int64],
) -> None:
    """All scores are computed; the mask is made anew in each call, as a caller with another mask each time must."""
    import torch

    seen = _seen(q, k, v, out, masks, causal, lengths)
    if seen is None:
        return
    with torch.inference_mode():
        found = torch.nn.functional.scaled_dot_product_attention(
            tensor_of(q),
            tensor_of(k),
            tensor_of(v),
            attn_mask=seen,
            scale=scale,
            enable_gqa=q.shape[1] != k.shape[1],
        )
        # A row that sees nothing: zeros in torch too, from 2.5 on.
        torch.from_numpy(out).copy_(torch.where(seen.any(-1, keepdim=True), found, torch.zeros(())))


@cache
def _flex_compiled() -> Any:
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _flex(
    q: Float32,
    k: Float32,
    v: Float32,
    out: Float32,
    masks: Sequence[Any],
    scale: float,
    causal: bool,
    lengths: npt.NDArray[np.int64],
) -> None:
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    (batch, heads, queries, _), keys = q.shape, k.shape[2]
    seen = _seen(q, k, v, out, masks, causal, lengths)
    if seen is None:
        return
    per_batch, per_head = seen.shape[0] > 1, seen.shape[1] > 1

    def sees(b: Any, h: Any, i: Any, j: Any) -> Any:
        return seen[b if per_batch else 0, h if per_head else 0, i, j]

    with torch.inference_mode():
        blocks = create_block_mask(
            sees, batch if per_batch else None, heads if per_head else None, queries, keys, device="cpu"
        )
        found = _flex_compiled()(
            tensor_of(q), tensor_of(k), tensor_of(v), block_mask=blocks, scale=scale, enable_gqa=heads != k.shape[1]
        )
        torch.from_numpy(out).copy_(torch.where(seen.any(-1, keepdim=True), found, torch.zeros(())))


for _format in ("rule", "csr", "bsr"):
    _name = f"attention_{_format}_f32_torch"
    operations.add(
        _name,
        OperationKernel(
            name=_name,
            op="attention",
            format=_format,
            dtype="float32",
            isa="torch",
            origin="torch",
            function=_dense,
            reason=missing("torch"),
            doc="scaled_dot_product_attention with a dense boolean mask",
        ),
    )

# Zen 3, 2 busy cores: 60 s for the first call of a shape, so the tests of all kernels leave it out.
operations.add(
    "attention_rule_f32_flex",
    OperationKernel(
        name="attention_rule_f32_flex",
        op="attention",
        format="rule",
        dtype="float32",
        isa="flex",
        origin="torch",
        function=_flex,
        reason=missing("torch")
        or "FlexAttention compiles C++ for each shape, about a minute; call its function yourself",
        doc="FlexAttention, compiled, with a block mask made in each call",
    ),
)
