"""What a pruning method is: an object in `registry`, one file each under `sparsify/weights/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from .._errors import InvalidArgument
from .._registry import Registry
from .pattern import Pattern

if TYPE_CHECKING:
    import torch

Needs = Literal["nothing", "norms", "hessian"]


class InputStats:
    """What a method may know of a layer's input X (tokens, K): X^T X, or its diagonal alone, summed over the batches.

    Args:
        features: K.
        full: Keep X^T X (K, K), as SparseGPT needs; else only the sum of squares of each column.
        device: Where the sums are kept.
    """

    def __init__(self, features: int, *, full: bool, device: str | torch.device = "cpu") -> None:
        import torch

        self.features = features
        self.tokens = 0
        self.gram: torch.Tensor | None = torch.zeros(features, features, device=device) if full else None
        self._squares = torch.zeros(features, device=device)

    def add(self, x: torch.Tensor, *, where: str = "calibration") -> None:
        """Count the rows of `x` (tokens, K) in.

        Raises:
            InvalidArgument: If `x` holds NaN or Inf.
        """
        import torch

        x = x.reshape(-1, self.features).float()
        squares = torch.linalg.vector_norm(x, dim=0).square()
        if not bool(torch.isfinite(squares).all()):
            raise InvalidArgument(
                f"{where}: calibration activations hold NaN or Inf (batch after {self.tokens} tokens); "
                "check the calibration data and the weights of the model."
            )
        self.tokens += len(x)
        self._squares += squares
        if self.gram is not None:
            self.gram.addmm_(x.T, x)

    @property
    def squares(self) -> torch.Tensor:
        """Sum over the tokens of the square of each input feature, (K,)."""
        return self._squares


@dataclass(frozen=True)
class Pruned:
    """A pruned matrix: `weight` (M, K) holds zeros where `mask` (bool, True where kept) is False."""

    weight: torch.Tensor
    mask: torch.Tensor

    @property
    def sparsity(self) -> float:
        return 1 - int(self.mask.sum()) / max(self.mask.numel(), 1)


class Pruner(Protocol):
    """One method. `needs` says what of the input it wants to see: nothing, the norms of its columns, or X^T X."""

    name: str
    summary: str
    needs: Needs
    scopes: Sequence[str]  # the first is the default

    def prune(
        self,
        weight: torch.Tensor,
        stats: InputStats | None,
        *,
        sparsity: float | None,
        pattern: Pattern | str,
        scope: str | None,
        seed: int,
    ) -> Pruned:
        """Prune one float32 matrix (M, K); `weight` itself is left as it was."""
        ...


registry: Registry[Pruner] = Registry("pruner", "zeroskip.sparsify.weights")


def resolve_scope(pruner: Pruner, scope: str | None, *, where: str = "prune") -> str:
    """`scope`, or the method's own where it is None.

    Raises:
        InvalidArgument: If the method does not know it; lists those it does.
    """
    if scope is None:
        return pruner.scopes[0]
    if scope not in pruner.scopes:
        raise InvalidArgument(
            f"{where}: scope is {scope!r}, which {pruner.name} does not have; choose one of: "
            f"{', '.join(pruner.scopes)}."
        )
    return scope


def need_stats(stats: InputStats | None, *, where: str, features: int, full: bool = False) -> InputStats:
    """The statistics a method cannot do without, checked against the weight."""
    if stats is None or stats.tokens == 0 or (full and stats.gram is None):
        raise InvalidArgument(
            f"{where}: the method needs calibration inputs, but there are none; pass InputStats with data."
        )
    if stats.features != features:
        raise InvalidArgument(
            f"{where}: statistics are of {stats.features} features but the weight has K = {features}."
        )
    return stats
