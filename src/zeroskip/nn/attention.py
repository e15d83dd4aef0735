"""Sparse attention where models call attention: in the place of torch's function, and in Hugging Face models."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .._errors import DtypeError, InvalidArgument, MissingDependency, ShapeError
from ..formats import BSR, CSR, SparseMatrix
from ..ops import Rule
from ..ops import attention as sparse_attention

_BLOCKS = (64, 32, 16)
_REMEMBERED = 16

Masks = tuple[CSR | BSR, ...]


def scaled_dot_product_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | Rule | SparseMatrix | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    """`torch.nn.functional.scaled_dot_product_attention` for inference, in time that follows what the mask shows.

    A boolean mask is turned into a sparse one, blocks where it consists of them, and remembered as long as the tensor
    lives and is not written to. An additive mask of nothing but 0 and what hides (-inf, or the least number of its
    type) is taken as a boolean one. Any other additive mask goes to torch: all scores count, and there is nothing to
    skip. Computes in float32.

    Args:
        query: (..., H, L, E), on the CPU.
        key: (..., Hkv, S, E).
        value: (..., Hkv, S, Ev).
        attn_mask: Boolean, True where seen, or added to the scores; broadcast to (..., H, L, S). Beyond torch's: a
            `Rule` or a sparse matrix (L, S), whose positions are those of `ops.attention`.
        dropout_p: Only 0.
        is_causal: Query i sees keys up to i, counted from the first, as in torch. Not with `attn_mask`.
        scale: Of the scores; None: 1 / sqrt(E).
        enable_gqa: Whether Hkv may be a divisor of H.
    Returns:
        (..., H, L, Ev) in the dtype of `query`.
    Raises:
        InvalidArgument: If a gradient is wanted, or dropout, or a mask beside is_causal.
        DtypeError: If the mask is neither boolean nor floating.
        ShapeError: If shapes do not fit.
    """
    where = "scaled_dot_product_attention"
    _check_inference(where, (query, key, value), dropout_p)
    if is_causal and attn_mask is not None:
        raise InvalidArgument(f"{where}: attn_mask is given beside is_causal=True; pass one of the two.")
    if isinstance(attn_mask, torch.Tensor) and attn_mask.dtype != torch.bool and not attn_mask.is_floating_point():
        raise DtypeError(f"{where}: attn_mask has dtype {attn_mask.dtype}; pass a boolean or a floating one.")
    query, key, value = _same_batch(where, query, key, value, enable_gqa)
    if is_causal:
        return _causal_from_first(query, key, value, scale)
    if not isinstance(attn_mask, torch.Tensor):
        found: torch.Tensor = sparse_attention(query, key, value, attn_mask, scale=scale)
        return found
    masks = masks_of(attn_mask, (*query.shape[:-1], key.shape[-2]), where=where)
    if masks is None:
        return torch.nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, scale=scale, enable_gqa=enable_gqa
        )
    found = sparse_attention(query, key, value, masks, scale=scale)
    return found


def register(name: str = "zeroskip", rule: Rule | None = None) -> None:
    """Make `attn_implementation=name` known to Hugging Face transformers.

    Queries see what the model shows them (causal or not, padding) and what `rule` shows, both. Where nothing but a
    causal mask is asked for, which is decoding and text without padding, no mask is ever stored. Registering a name
    again replaces its rule.

    Args:
        name: What models are loaded with, or told by `model.set_attn_implementation(name)`.
        rule: Shown keys, in positions of the cache; None: all.
    Raises:
        MissingDependency: If transformers is missing or has no such interface.
        InvalidArgument: If rule is no `Rule`, or the name is one of transformers' own.
    """
    shown = Rule() if rule is None else rule
    if not isinstance(shown, Rule):
        raise InvalidArgument(f"register: rule is a {type(rule).__name__}; pass a zeroskip.ops.Rule.")
    try:
        from transformers import AttentionInterface, AttentionMaskInterface
    except ImportError as error:
        raise MissingDependency(
            f"register: needs transformers with AttentionMaskInterface, 4.53 or newer ({error}); "
            "pip install 'zeroskip[models]'."
        ) from error
    own = AttentionInterface._global_mapping.get(name)
    if name == "eager" or (own is not None and not isinstance(own, _HuggingFaceAttention)):
        raise InvalidArgument(f"register: name is {name!r}, which transformers has already; choose another name.")
    AttentionInterface.register(name, _HuggingFaceAttention(shown))
    AttentionMaskInterface.register(name, _hugging_face_mask)


class _HuggingFaceAttention:
    """The function that transformers calls in each layer."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule

    def __call__(
        self,
        module: torch.nn.Module,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        is_causal: bool | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, None]:
        where = "zeroskip attention"
        for refused in ("softcap", "position_bias", "s_aux", "output_attentions"):
            if kwargs.get(refused) is not None and kwargs[refused] is not False:
                raise InvalidArgument(f"{where}: {refused} is given, it takes none; use attn_implementation='eager'.")
        _check_inference(where, (query, key, value), dropout)
        if attention_mask is None:
            causal = bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)
            out = sparse_attention(query, key, value, self.rule, scale=scaling, causal=causal)
        else:
            shape = (*query.shape[:-1], key.shape[-2])
            masks = masks_of(attention_mask, shape, rule=self.rule, where=where)
            if masks is None:
                raise InvalidArgument(
                    f"{where}: the mask adds to scores instead of hiding keys, it takes none such; "
                    "use attn_implementation='eager'."
                )
            out = sparse_attention(query, key, value, masks, scale=scaling)
        return out.transpose(1, 2).contiguous(), None


def _hugging_face_mask(
    *,
    q_length: int,
    kv_length: int,
    q_offset: int = 0,
    kv_offset: int = 0,
    mask_function: Any = None,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """None where the kernel knows by itself who sees what, else a boolean mask (batch, 1, queries, keys)."""
    from transformers import masking_utils

    plain = (masking_utils.causal_mask_function, getattr(masking_utils, "bidirectional_mask_function", None))
    padded = attention_mask is not None and not bool(attention_mask.all())
    last_keys = int(kv_offset) == 0 and int(q_offset) + q_length == kv_length
    if not padded and mask_function in plain and (last_keys or mask_function is plain[1]):
        return None
    kwargs |= {"allow_is_causal_skip": False, "allow_is_bidirectional_skip": False}
    found: torch.Tensor | None = masking_utils.sdpa_mask(
        q_length=q_length,
        kv_length=kv_length,
        q_offset=q_offset,
        kv_offset=kv_offset,
        mask_function=mask_function,
        attention_mask=attention_mask,
        **kwargs,
    )
    return found


_remembered: dict[tuple[Any, ...], tuple[Any, int, Masks | None]] = {}


def masks_of(
    mask: torch.Tensor, shape: tuple[int, ...], *, rule: Rule | None = None, where: str = "masks_of"
) -> Masks | None:
    """A dense mask, broadcast to `shape` (..., H, n, m), as sparse ones: one, or one for each sequence and head.

    Returns:
        None for an additive mask that does more than hide.
    """
    try:
        version = mask._version
    except RuntimeError:  # made under inference_mode, where writes are not counted
        return _convert(mask, shape, rule, where)
    name = (id(mask), shape, rule)
    kept = _remembered.get(name)
    if kept is not None and kept[0]() is mask and kept[1] == version:
        return kept[2]
    found = _convert(mask, shape, rule, where)
    for old in [old for old, entry in _remembered.items() if entry[0]() is None]:
        _remembered.pop(old, None)
    while len(_remembered) >= _REMEMBERED:
        _remembered.pop(next(iter(_remembered)), None)
    _remembered[name] = (weakref.ref(mask), version, found)
    return found


def _convert(mask: torch.Tensor, shape: tuple[int, ...], rule: Rule | None, where: str) -> Masks | None:
    seen = mask if mask.dtype == torch.bool else _hidden_as_boolean(mask)
    if seen is None:
        return None
    queries, keys = shape[-2:]
    try:
        torch.broadcast_shapes(seen.shape, shape)  # type: ignore[no-untyped-call]
        seen = seen.expand(*seen.shape[:-2], queries, keys) if seen.ndim >= 2 else seen.expand(queries, keys)
        if seen.ndim > len(shape):
            raise RuntimeError
    except RuntimeError:
        raise ShapeError(
            f"{where}: attn_mask has shape {tuple(mask.shape)}, which does not broadcast to {shape}; reshape it."
        ) from None
    if rule is not None:
        seen = seen & torch.from_numpy(rule.matrix(queries, keys))
    if not seen.numel():
        return None
    matrices = list(seen.reshape(-1, queries, keys))
    size = next((size for size in _BLOCKS if all(_in_blocks(one, size) for one in matrices)), None)
    found = tuple(_csr(one) if size is None else _bsr(one, size) for one in matrices)
    if len(found) == 1:
        return found
    place = torch.arange(len(found)).reshape(seen.shape[:-2]).expand(shape[:-2])
    return tuple(found[i] for i in place.reshape(-1).tolist())


def _hidden_as_boolean(mask: torch.Tensor) -> torch.Tensor | None:
    """An additive mask of zeros and of what hides, as a boolean one; None for any other."""
    least = torch.finfo(mask.dtype).min
    hides, seen = mask <= least, mask == 0
    if not bool((hides | seen).all()):
        return None
    # The least number hides nothing where a whole row has it: all scores are then alike.
    if not bool((seen.any(-1) | (mask == -math.inf).all(-1)).all()):
        return None
    return seen


def _in_blocks(seen: torch.Tensor, size: int) -> bool:
    """Whether a boolean matrix consists of blocks that are seen whole or not at all."""
    if seen.shape[0] % size or seen.shape[1] % size:
        return False
    blocks = _blocks(seen, size)
    return torch.equal(blocks.any(3).any(1), blocks.all(3).all(1))


def _blocks(seen: torch.Tensor, size: int) -> torch.Tensor:
    return seen.reshape(seen.shape[0] // size, size, seen.shape[1] // size, size)


def _bsr(seen: torch.Tensor, size: int) -> BSR:
    indptr, columns = _stored(_blocks(seen, size)[:, 0, :, 0])
    data = np.ones((columns.size, size, size), dtype=np.float32)
    return BSR((seen.shape[0], seen.shape[1]), (size, size), indptr, columns.astype(np.int32), data)


def _csr(seen: torch.Tensor) -> CSR:
    indptr, columns = _stored(seen)
    indices = columns.astype(np.int32 if seen.shape[1] <= 2**31 - 1 else np.int64)
    return CSR((seen.shape[0], seen.shape[1]), indptr, indices, np.ones(indices.size, dtype=np.float32))


def _stored(seen: torch.Tensor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Row offsets and columns of what a boolean matrix has."""
    rows, columns = (index.numpy() for index in seen.nonzero(as_tuple=True))
    indptr = np.zeros(seen.shape[0] + 1, dtype=np.int64)
    np.cumsum(np.bincount(rows, minlength=seen.shape[0]), out=indptr[1:])
    return indptr, columns


def _check_inference(where: str, tensors: tuple[torch.Tensor, ...], dropout: float) -> None:
    for name, tensor in zip(("query", "key", "value"), tensors, strict=True):
        if not isinstance(tensor, torch.Tensor):
            raise InvalidArgument(f"{where}: {name} is a {type(tensor).__name__}; pass a torch tensor.")
        if tensor.requires_grad and torch.is_grad_enabled():
            raise InvalidArgument(
                f"{where}: {name} requires grad, but this is for inference and has no gradient; "
                "call it under torch.inference_mode(), or use torch's own for training."
            )
    if dropout:
        raise InvalidArgument(f"{where}: dropout is {dropout}, this is for inference; pass 0.")


def _same_batch(
    where: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, gqa: bool
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All with the sizes before the last two broadcast, as torch does; heads only where they are not shared."""
    tensors = (query, key, value)
    if min(tensor.ndim for tensor in tensors) < 3:
        raise ShapeError(
            f"{where}: shapes are {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}, each is "
            "(..., heads, length, features); pass at least 3 dimensions."
        )
    apart = 3 if gqa else 2
    try:
        batch = torch.broadcast_shapes(*(tensor.shape[:-apart] for tensor in tensors))  # type: ignore[no-untyped-call]
    except RuntimeError:
        mend = "expand them" if gqa else "expand them, or pass enable_gqa=True where heads share keys"
        raise ShapeError(
            f"{where}: shapes are {', '.join(str(tuple(tensor.shape)) for tensor in tensors)}, the sizes before the "
            f"last {apart} do not broadcast; {mend}."
        ) from None
    query, key, value = (tensor.expand(*batch, *tensor.shape[-apart:]) for tensor in tensors)
    return query, key, value


def _causal_from_first(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Query i sees keys up to i: the keys beyond the queries are not seen, the queries beyond the keys see all."""
    both = min(query.shape[-2], key.shape[-2])
    first: torch.Tensor = sparse_attention(
        query[..., :both, :], key[..., :both, :], value[..., :both, :], scale=scale, causal=True
    )
    if both == query.shape[-2]:
        return first
    return torch.cat((first, sparse_attention(query[..., both:, :], key, value, scale=scale)), dim=-2)
