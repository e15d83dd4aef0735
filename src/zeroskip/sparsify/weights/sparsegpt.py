"""SparseGPT: prune column by column, the later columns making up for what was dropped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..._errors import InvalidArgument
from ..mask import check_pattern, mask_from_scores
from ..pattern import Pattern
from ..pruner import InputStats, Needs, Pruned, need_stats, registry, resolve_scope

if TYPE_CHECKING:
    import torch

_BLOCK = 128
_DAMPING = 0.01
_MAX_DAMPING = 1e3


class SparseGPT:
    """Optimal brain surgeon with one Hessian for all rows, in blocks of 128 columns.

    With H = X^T X + damping and U the upper Cholesky factor of its inverse, the score of an entry is (W_ij / U_jj)^2,
    and dropping W_ij adds -W_ij / U_jj * U_j,j+1.. to the columns behind it.

    Source: Frantar & Alistarh, "SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot", ICML 2023,
    algorithm 1.
    """

    name = "sparsegpt"
    summary = "second-order one-shot: the columns behind make up for those dropped"
    needs: Needs = "hessian"
    scopes: Sequence[str] = ("layer", "row")

    def prune(
        self,
        weight: torch.Tensor,
        stats: InputStats | None,
        *,
        sparsity: float | None = None,
        pattern: Pattern | str = "unstructured",
        scope: str | None = None,
        seed: int = 0,
    ) -> Pruned:
        """See `sparsify.Pruner`."""
        import torch

        stats = need_stats(stats, where="sparsegpt", features=weight.shape[1], full=True)
        parsed = check_pattern(pattern, (weight.shape[0], weight.shape[1]), where="sparsegpt")
        wanted = parsed.sparsity_or_default(sparsity, where="sparsegpt")
        scope = resolve_scope(self, scope)
        assert stats.gram is not None
        weight = weight.float().clone()
        weight[:, stats.gram.diagonal() == 0] = 0  # a feature that is never on cannot matter
        upper = inverse_cholesky(stats.gram)
        mask = torch.empty_like(weight, dtype=torch.bool)
        step = _step(parsed)
        for start in range(0, weight.shape[1], step):
            columns = slice(start, min(start + step, weight.shape[1]))
            errors = _sweep(weight, mask, upper, columns, pattern=parsed, sparsity=wanted, scope=scope)
            weight[:, columns.stop :].addmm_(errors.T, upper[columns, columns.stop :], alpha=-1)
        return Pruned(weight * mask, mask)


def inverse_cholesky(gram: torch.Tensor) -> torch.Tensor:
    """The upper Cholesky factor of (G + damping)^-1; the damping is raised tenfold until the factorisation succeeds.

    Raises:
        InvalidArgument: If no damping makes it positive definite (the sums hold something that is not a number).
    """
    import torch

    gram = gram.clone()
    diagonal = gram.diagonal()
    diagonal[diagonal == 0] = 1
    mean, damping = float(diagonal.mean()), _DAMPING
    while math.isfinite(mean) and damping <= _MAX_DAMPING:
        damped = gram.clone()
        damped.diagonal().add_(damping * mean)
        lower, info = torch.linalg.cholesky_ex(damped)
        if int(info) == 0:
            upper: torch.Tensor
            upper, info = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if int(info) == 0 and bool(torch.isfinite(upper).all()):
                return upper
        damping *= 10
    raise InvalidArgument("sparsegpt: the Hessian is not positive definite at any damping; check the calibration data.")


def _step(pattern: Pattern) -> int:
    """Columns handled together: 128, or the nearest whole number of groups."""
    group = pattern.m if pattern.grouped else pattern.cols
    return group * max(1, _BLOCK // group)


def _sweep(
    weight: torch.Tensor,
    mask: torch.Tensor,
    upper: torch.Tensor,
    columns: slice,
    *,
    pattern: Pattern,
    sparsity: float,
    scope: str,
) -> torch.Tensor:
    """Prune one block of columns in place and give its errors, transposed (columns, M).

    The update of the columns inside the block is left to the moment each one is needed (one product with the errors so
    far)
    instead of being spread after every column: the same sums, a third of the time.
    """
    import torch

    block = weight[:, columns].T.contiguous()
    inside = upper[columns, columns]
    diagonal = inside.diagonal()
    errors = torch.zeros_like(block)
    width = block.shape[0]
    unit = pattern.m if pattern.grouped else width
    keep = torch.empty_like(block, dtype=torch.bool)
    for i in range(width):
        if i % unit == 0:  # N:M chooses each group with its weights up to date, the others the whole block at once
            now = block[i : i + unit] - inside[:i, i : i + unit].T @ errors[:i]
            scores = (now / diagonal[i : i + unit, None]).square()
            share = _share(weight, columns.start + i, unit, pattern=pattern, sparsity=sparsity)
            keep[i : i + unit] = mask_from_scores(scores.T, sparsity=share, pattern=pattern, scope=scope).T
        column = block[i] - inside[:i, i] @ errors[:i]
        kept = column * keep[i]
        errors[i] = (column - kept) / diagonal[i]
        block[i] = kept
    weight[:, columns] = block.T
    mask[:, columns] = keep.T
    return errors


def _share(weight: torch.Tensor, start: int, width: int, *, pattern: Pattern, sparsity: float) -> float:
    """The sparsity of these columns, so that the whole matrix ends at exactly `sparsity`."""
    if pattern.grouped and sparsity <= pattern.min_sparsity + 1e-9:
        return pattern.min_sparsity
    unit = pattern.rows * pattern.cols if pattern.kind == "block" else 1
    column = weight.shape[0] / unit
    before, after = (math.floor(sparsity * column * end + 0.5) for end in (start, start + width))
    share = (after - before) / (column * width)
    return max(share, pattern.min_sparsity)


registry.add("sparsegpt", SparseGPT())
