"""From scores to a mask: the one place where a pattern and a promised sparsity are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from .._errors import InvalidArgument
from .pattern import VNM_COLUMNS, Pattern

if TYPE_CHECKING:
    import torch

Scope = Literal["layer", "row", "global"]
SCOPES: tuple[Scope, ...] = ("layer", "row", "global")


def check_pattern(pattern: Pattern | str, shape: tuple[int, int], *, where: str = "mask_from_scores") -> Pattern:
    """Parse `pattern` and make sure that it divides `shape`."""
    parsed = Pattern.parse(pattern)
    parsed.check_shape(shape, where=where)
    return parsed


@overload
def mask_from_scores(
    scores: torch.Tensor, *, sparsity: float | None = ..., pattern: Pattern | str = ..., scope: str = ...
) -> torch.Tensor: ...
@overload
def mask_from_scores(
    scores: Sequence[torch.Tensor], *, sparsity: float | None = ..., pattern: Pattern | str = ..., scope: str = ...
) -> list[torch.Tensor]: ...
def mask_from_scores(
    scores: torch.Tensor | Sequence[torch.Tensor],
    *,
    sparsity: float | None = None,
    pattern: Pattern | str = "unstructured",
    scope: str = "layer",
) -> torch.Tensor | list[torch.Tensor]:
    """Keep the entries of high score; drop exactly the promised share of the others.

    Of equal scores those that come first in row order are dropped first, so that a mask depends on nothing else. The
    number of dropped entries is `round(sparsity * numel)`; of blocks, `round(sparsity * blocks)`; within rows it
    differs by one at most, so that the sum is exact. A block's score is the sum of its entries'. V:N:M keeps the 4
    columns of each block that have the largest sums, and of these the best N in each row: first columns, then entries,
    the order of Castro et al., "VENOM", SC 2023.

    Args:
        scores: (M, K), finite. Or several, with scope `global`, which then share one threshold.
        sparsity: In [0, 1); None is what N:M and V:N:M imply, else 0.5.
        pattern: `unstructured`, `N:M` (N KEPT of each M along K), `vnm:VxN:M` or `block:RxC`.
        scope: What competes: all entries of a `layer`, each `row` by itself (block row for blocks), or all layers
            (`global`).
    Returns:
        Bool mask (M, K), True where kept; a list of them for several.
    Raises:
        InvalidArgument: If the sparsity, the pattern or the scope cannot be, or a score is not finite.
        ShapeError: If the pattern does not divide the matrix.
    """
    import torch

    parsed = Pattern.parse(pattern)
    wanted = parsed.sparsity_or_default(sparsity, where="mask_from_scores")
    if scope not in SCOPES:
        raise InvalidArgument(f"mask_from_scores: scope is {scope!r}; choose one of: {', '.join(SCOPES)}.")
    several = not isinstance(scores, torch.Tensor)
    layers: list[torch.Tensor] = list(scores) if several else [scores]  # type: ignore[list-item]
    for layer in layers:
        parsed.check_shape(layer.shape)
        if not bool(torch.isfinite(layer).all()):
            raise InvalidArgument(
                "mask_from_scores: scores hold NaN or Inf; check the weights and the calibration data."
            )
    if scope == "global":
        masks = _global_masks(layers, parsed, wanted)
    else:
        masks = [_layer_mask(layer.float(), parsed, wanted, per_row=scope == "row") for layer in layers]
    return masks if several else masks[0]


def _layer_mask(scores: torch.Tensor, pattern: Pattern, sparsity: float, *, per_row: bool) -> torch.Tensor:
    """The mask of one matrix, whose scores are float32."""
    if pattern.kind == "block":
        units = _block_sums(scores, pattern)
        kept = ~_drop_lowest(units if per_row else units.reshape(1, -1), sparsity).reshape(units.shape)
        return kept.repeat_interleave(pattern.rows, 0).repeat_interleave(pattern.cols, 1)
    if pattern.grouped:
        dropped = _drop_in_groups(scores, pattern)
        if sparsity <= pattern.min_sparsity + 1e-9:
            return ~dropped
        # Above 1 - N/M: what the groups dropped goes first, the rest by score.
        scores = scores.masked_fill(dropped, float("-inf"))
    return ~_drop_lowest(scores if per_row else scores.reshape(1, -1), sparsity).reshape(scores.shape)


def _drop_in_groups(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    """True at what N:M or V:N:M drops: the lowest M - N of each group, after the columns that a V:N:M block drops."""
    if pattern.kind == "vnm":
        rows, cols = scores.shape
        sums = scores.reshape(rows // pattern.v, pattern.v, cols).sum(1).reshape(-1, pattern.m)
        gone = _drop_counts(sums, sums.new_full((len(sums),), pattern.m - VNM_COLUMNS))
        gone = gone.reshape(-1, cols).repeat_interleave(pattern.v, 0)
        scores = scores.masked_fill(gone, float("-inf"))
    groups = scores.reshape(-1, pattern.m)
    return _drop_counts(groups, groups.new_full((len(groups),), pattern.m - pattern.n)).reshape(scores.shape)


def _global_masks(layers: list[torch.Tensor], pattern: Pattern, sparsity: float) -> list[torch.Tensor]:
    """Masks of several matrices under one threshold: laid end to end as one row of units (entries or blocks)."""
    import torch

    if pattern.grouped:
        # Within groups N:M leaves nothing to share; only what goes beyond it is global.
        floor = [_layer_mask(layer.float(), pattern, pattern.min_sparsity, per_row=False) for layer in layers]
        if sparsity <= pattern.min_sparsity + 1e-9:
            return floor
        layers = [layer.float().masked_fill(~keep, float("-inf")) for layer, keep in zip(layers, floor, strict=True)]
    if pattern.kind == "block":
        units = [_block_sums(layer.float(), pattern) for layer in layers]
    else:
        units = [layer.float() for layer in layers]
    kept = ~_drop_lowest(torch.cat([unit.reshape(-1) for unit in units]).reshape(1, -1), sparsity).reshape(-1)
    parts = torch.split(kept, [unit.numel() for unit in units])
    masks = [part.reshape(unit.shape) for part, unit in zip(parts, units, strict=True)]
    if pattern.kind == "block":
        masks = [mask.repeat_interleave(pattern.rows, 0).repeat_interleave(pattern.cols, 1) for mask in masks]
    return masks


def _block_sums(scores: torch.Tensor, pattern: Pattern) -> torch.Tensor:
    rows, cols = scores.shape
    return scores.reshape(rows // pattern.rows, pattern.rows, cols // pattern.cols, pattern.cols).sum((1, 3))


def _drop_lowest(rows: torch.Tensor, sparsity: float) -> torch.Tensor:
    """True at the lowest of each row; row i drops round(s L (i + 1)) - round(s L i), so that the sum is exact."""
    import torch

    ends = torch.arange(len(rows) + 1, dtype=torch.float64) * (sparsity * rows.shape[1])
    return _drop_counts(rows, torch.floor(ends + 0.5).diff().to(rows.device))


def _drop_counts(rows: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """True at the `counts[i]` lowest of row i, ties by position. Counts differ by one at most."""
    import torch

    counts = counts.to(torch.int64)
    if rows.numel() == 0 or int(counts.max()) == 0:
        return torch.zeros_like(rows, dtype=torch.bool)
    low, high = max(int(counts.min()), 1), int(counts.max())
    threshold = rows.kthvalue(high, dim=1).values
    if low != high:
        threshold = torch.where(counts == high, threshold, rows.kthvalue(low, dim=1).values)
    below, tied = rows < threshold[:, None], rows == threshold[:, None]
    room = counts - below.sum(1)
    return (below | (tied & (tied.cumsum(1) <= room[:, None]))) & (counts > 0)[:, None]
