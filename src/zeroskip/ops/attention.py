"""Attention over a pattern of seen keys: softmax(scale q k^T) v in one pass, scores never in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError, InvalidArgument, ShapeError
from ..formats import BSR, CSR, SparseMatrix, like
from ..kernels import operation_kernel
from ..kernels._base import Float32
from ._check import as_float32
from .rules import Rule

Mask = Rule | CSR | BSR
_FULL = Rule()


def attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Rule | SparseMatrix | Sequence[Rule | SparseMatrix] | None = None,
    *,
    scale: float | None = None,
    causal: bool = False,
    lengths: Any = None,
    kernel: str = "auto",
) -> Any:
    """Attention of each query over the keys that it sees.

    O(n d) memory: beside the result only some lists of keys, a thread. A query that sees no key gives zeros. NaN and
    infinities reach the queries that see them, as NaN or infinities, and no other. No gradient.

    Args:
        q: (..., H, n, d), float32, bfloat16 or float16; NumPy, torch on the CPU or DLPack. Copied if not contiguous.
        k: (..., Hkv, m, d), H a multiple of Hkv: heads share keys in groups of neighbours.
        v: (..., Hkv, m, dv).
        mask: None: all keys are seen. A `Rule`, or a sparse matrix (n, m) whose stored entries are seen, whatever their
            values: CSR; BSR, whose stored blocks are seen whole; another format is taken as CSR. One for all, or a
            sequence of H, or of one for each sequence and head (their product), of one kind.
        scale: Of the scores; None: 1 / sqrt(d).
        causal: Query i, which sits at key position i + m - n, sees no key after its own, beside what the mask says.
        lengths: (batch,) whole numbers where q is (batch, H, n, d), else of the shape of the dimensions before H: keys
            of each sequence; those beyond are padding. Where n = m queries beyond are padding too and give zeros. Where
            n differs from m, the n queries are the last of each sequence, at positions i + length - n.
        kernel: A name from `zeroskip list kernels`, or "auto".
    Returns:
        (..., H, n, dv), of the kind and dtype of `q`, summed in float32.
    Raises:
        ShapeError: If shapes do not fit each other or the mask.
        DtypeError: If values are of other types.
        InvalidArgument: If scale, lengths or mask are none that attention has.
        KernelUnavailable: If the named kernel cannot run here; says why.
    """
    arrays = [as_float32("attention", name, array) for name, array in (("q", q), ("k", k), ("v", v))]
    _check_shapes(*arrays)
    *batch, heads, queries, d = arrays[0].shape
    keys, dv = arrays[2].shape[-2:]
    size = math.prod(batch)
    masks = _check_masks(mask, size, heads, queries, keys)
    valid = _check_lengths(lengths, tuple(batch), queries, keys)
    factor = _check_scale(scale, d)
    if not isinstance(causal, bool | np.bool_):
        raise InvalidArgument(f"attention: causal is {causal!r}, it is True or False; pass causal=True.")
    found = operation_kernel("attention", "attention", _format_of(masks[0]), "float32", kernel)
    out: Float32 = np.empty((size, heads, queries, dv), dtype=np.float32)
    four = [array.reshape(size, *array.shape[-3:]) for array in arrays]
    if out.size and keys == 0:
        out[...] = 0.0
    elif out.size:
        found.function(*four, out, masks, factor, bool(causal), valid)
    return like(out.reshape(*batch, heads, queries, dv), q)


def _check_shapes(q: Float32, k: Float32, v: Float32) -> None:
    for name, array in (("q", q), ("k", k), ("v", v)):
        if array.ndim < 3:
            raise ShapeError(
                f"attention: {name} has shape {array.shape}, it is (..., heads, length, features); "
                f"pass {name} with at least 3 dimensions."
            )
    if k.shape[:-1] != v.shape[:-1]:
        raise ShapeError(
            f"attention: v has shape {v.shape} but k has {k.shape}, all but the last size must agree; "
            "pass a value for each key."
        )
    if q.shape[:-3] != k.shape[:-3]:
        raise ShapeError(
            f"attention: k has shape {k.shape} but q has {q.shape}, the sizes before the heads must agree; "
            "expand k and v."
        )
    if q.shape[-1] != k.shape[-1] or not q.shape[-1]:
        raise ShapeError(
            f"attention: k has shape {k.shape} but q has {q.shape}, the last size must agree and be at least 1; "
            "pass keys with as many features as queries."
        )
    heads, kv_heads = q.shape[-3], k.shape[-3]
    if not kv_heads or heads % kv_heads:
        raise ShapeError(
            f"attention: k has {kv_heads} heads but q has {heads}, which must be a multiple; "
            "pass k and v with a divisor of the heads of q."
        )


def _check_masks(mask: Any, batch: int, heads: int, queries: int, keys: int) -> tuple[Mask, ...]:
    """The masks as rules, or as sparse matrices of one format."""
    if mask is None:
        return (_FULL,)
    several = isinstance(mask, list | tuple)
    given = tuple(mask) if several else (mask,)
    if several and len(given) not in (1, heads, batch * heads):
        raise InvalidArgument(
            f"attention: mask has {len(given)} entries for {heads} heads and a batch of {batch}; "
            f"pass 1, {heads} or {batch * heads} masks."
        )
    found = tuple(_check_mask(f"mask[{i}]" if several else "mask", one, queries, keys) for i, one in enumerate(given))
    kinds = {type(one).__name__ for one in found}
    if len(kinds) > 1:
        raise InvalidArgument(
            f"attention: mask has entries of kinds {', '.join(sorted(kinds))}, all must be of one; convert them."
        )
    return found


def _check_mask(name: str, mask: Any, queries: int, keys: int) -> Mask:
    if isinstance(mask, Rule):
        return mask
    if not isinstance(mask, SparseMatrix):
        raise InvalidArgument(
            f"attention: {name} is a {type(mask).__name__}, not a mask; pass a Rule, a sparse matrix such as "
            "CSR.from_dense(mask), or one of either a head."
        )
    if mask.shape != (queries, keys):
        raise ShapeError(
            f"attention: {name} has shape {mask.shape} but there are {queries} queries and {keys} keys; "
            f"pass a mask of shape {(queries, keys)}."
        )
    if isinstance(mask, CSR | BSR):
        return mask
    converted = mask.convert("csr")
    assert isinstance(converted, CSR)
    return converted


def _check_lengths(lengths: Any, batch: tuple[int, ...], queries: int, keys: int) -> npt.NDArray[np.int64]:
    size = math.prod(batch)
    if lengths is None:
        return np.full(size, keys, dtype=np.int64)
    found = np.asarray(lengths)
    if found.dtype.kind not in "iu":
        raise DtypeError(
            f"attention: lengths has dtype {found.dtype}, it counts keys; pass whole numbers, one a sequence."
        )
    if found.shape != batch:
        raise ShapeError(
            f"attention: lengths has shape {found.shape} but the batch is {batch}; pass one length for each sequence."
        )
    least = 0 if queries >= keys else queries
    wrong = np.flatnonzero((found < least) | (found > keys))
    if wrong.size:
        raise InvalidArgument(
            f"attention: lengths has {found.ravel()[wrong[0]]}, lengths lie between {least} and {keys} for "
            f"{queries} queries and {keys} keys; pass what k and v hold of each sequence."
        )
    return np.ascontiguousarray(found.reshape(size), dtype=np.int64)


def _check_scale(scale: Any, d: int) -> float:
    if scale is None:
        return 1.0 / math.sqrt(d)
    try:
        factor = float(scale)
    except (TypeError, ValueError):
        factor = math.nan
    if not math.isfinite(factor):
        raise InvalidArgument(
            f"attention: scale is {scale!r}, it must be a finite number; pass scale=None for 1/sqrt(d)."
        )
    return factor


def _format_of(mask: Mask) -> str:
    return "rule" if isinstance(mask, Rule) else mask.name
