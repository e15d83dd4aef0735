"""Prune while a model trains: a callback for a plain torch loop that keeps masks, and raises sparsity step by step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .._errors import InvalidArgument
from .mask import mask_from_scores
from .pattern import Pattern

if TYPE_CHECKING:
    import torch


def cubic_sparsity(progress: float, *, start: float, final: float, begin: float = 0.0, end: float = 1.0) -> float:
    """The sparsity that a cubic schedule asks for: fast at first, while there is much to spare, slow at the end.

    Args:
        progress: How much of the training is done, in [0, 1].
        start, final: Sparsity up to `begin`, and from `end` on.
        begin, end: Between which shares of the training it rises.
    Source: Zhu and Gupta, "To prune, or not to prune", 2017, equation 1.
    """
    if progress >= end:
        return final
    left = 1.0 - max(0.0, progress - begin) / (end - begin)
    return final + (start - final) * left**3


class MaskKeeper:
    """Keeps what is zero at zero: after each step of an optimiser the weights are multiplied by their masks.

    Args:
        weights: By name, each (out, in); the zeros they hold now are the masks, unless `masks` says otherwise.
        masks: By name, bool of the same shape, True where kept.
    Raises:
        InvalidArgument: If there is no weight, or a mask is missing or of another shape.
    """

    def __init__(
        self, weights: Mapping[str, torch.nn.Parameter], masks: Mapping[str, torch.Tensor] | None = None
    ) -> None:
        if not weights:
            raise InvalidArgument("MaskKeeper: weights is empty; pass the parameters whose zeros are to stay.")
        self.weights = dict(weights)
        found = {name: weight.detach() != 0 for name, weight in weights.items()} if masks is None else dict(masks)
        for name, weight in weights.items():
            if name not in found or found[name].shape != weight.shape:
                shape = tuple(found[name].shape) if name in found else None
                raise InvalidArgument(
                    f"MaskKeeper: mask of {name} is {shape}, its weight {tuple(weight.shape)}; pass one of that shape."
                )
        self.masks = {name: found[name].to(weight.device).bool() for name, weight in weights.items()}
        self.apply()

    def apply(self) -> None:
        """Set what the masks drop to zero."""
        import torch

        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.mul_(self.masks[name])

    def step(self, progress: float | None = None) -> None:
        """Call after `optimizer.step()`."""
        self.apply()

    def finish(self) -> None:
        """Call when the training ends: whatever is still to be dropped is dropped now."""

    @property
    def settled(self) -> bool:
        """Whether the masks will not change any more."""
        return True

    @property
    def sparsity(self) -> float:
        """The share that the masks drop, of all weights together."""
        kept = sum(int(mask.sum()) for mask in self.masks.values())
        return 1 - kept / sum(mask.numel() for mask in self.masks.values())

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` of an object made with the same arguments takes; the weights themselves are not in
        it."""
        return {"masks": {name: mask.cpu() for name, mask in self.masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where `state_dict` was taken.

        Raises:
            InvalidArgument: If it belongs to other weights.
        """
        masks = state.get("masks", {})
        if {name: mask.shape for name, mask in masks.items()} != {n: w.shape for n, w in self.weights.items()}:
            raise InvalidArgument(
                "load_state_dict: the state is of other weights; make the object as it was made then."
            )
        self.masks = {name: masks[name].to(weight.device) for name, weight in self.weights.items()}


class GradualPruner(MaskKeeper):
    """Raises the sparsity during training by a cubic schedule, choosing again what to keep every few steps.

    What is dropped is not lost until the masks settle: the loss is taken on the sparse weights, but the steps that the
    optimiser would have made to dropped weights add up beside them, so that a weight can come back.

    Args:
        weights: By name, each (out, in), dense or pruned already.
        sparsity: At the end, of each weight.
        pattern: As for `prune`; N:M and V:N:M take their pattern at once, from the first step on.
        start: Sparsity at the first step.
        steps: Of the training; None where `step` is told the progress.
        end, settle: Shares of the training at which the last sparsity is reached, and after which masks stay.
        every: Steps between two choices.
        scales: By name, the (in,) factors of a column's score, such as the norms of the inputs; None scores by
            abs(W) alone.
    Raises:
        InvalidArgument: If an argument cannot be.
        ShapeError: If the pattern does not divide a weight.
    Source: Zhu and Gupta 2017 for the schedule; Lin et al., "Dynamic Model Pruning with Feedback", ICLR 2020.
    """

    def __init__(
        self,
        weights: Mapping[str, torch.nn.Parameter],
        *,
        sparsity: float | None = None,
        pattern: str | Pattern = "unstructured",
        start: float = 0.0,
        steps: int | None = None,
        end: float = 0.5,
        settle: float = 0.6,
        every: int = 20,
        scales: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        import torch

        self.pattern = Pattern.parse(pattern)
        self.final = self.pattern.sparsity_or_default(sparsity, where="GradualPruner")
        if not (0 < end <= settle <= 1 and every >= 1 and 0 <= start <= self.final):
            raise InvalidArgument(
                f"GradualPruner: end is {end}, settle {settle}, every {every}, start {start}; "
                f"0 < end <= settle <= 1, every >= 1 and 0 <= start <= {self.final:g} are needed."
            )
        if steps is not None and steps < 1:
            raise InvalidArgument(f"GradualPruner: steps is {steps}; pass at least 1.")
        for name, weight in weights.items():
            self.pattern.check_shape(weight.shape, where=f"GradualPruner: {name}")
        self.start, self.steps, self.end, self.settle, self.every = start, steps, end, settle, every
        self.scales = dict(scales or {})
        self.done = 0
        self._settled = False
        super().__init__(weights, {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()})
        self._dropped = {name: torch.zeros_like(w, requires_grad=False) for name, w in weights.items()}
        self._choose(0.0)

    @property
    def settled(self) -> bool:
        return self._settled

    def step(self, progress: float | None = None) -> None:
        """Call after `optimizer.step()`, before the gradients are used again.

        Args:
            progress: Share of the training that is done; needed where `steps` was not given.
        """
        import torch

        self.done += 1
        if progress is None:
            if self.steps is None:
                raise InvalidArgument("GradualPruner: steps was not given; pass it, or step(progress).")
            progress = self.done / self.steps
        if self._settled:
            self.apply()
            return
        with torch.no_grad():
            for name, weight in self.weights.items():
                self._dropped[name].add_(weight * ~self.masks[name])
        if self.done % self.every == 0 or progress >= self.settle:
            self._choose(progress)
        else:
            self.apply()

    def finish(self) -> None:
        if not self._settled:
            self._choose(1.0)

    def _choose(self, progress: float) -> None:
        """New masks at the sparsity of now; the last ones once `settle` has come."""
        import torch

        wanted = cubic_sparsity(progress, start=self.start, final=self.final, end=self.end)
        with torch.no_grad():
            for name, weight in self.weights.items():
                weight.add_(self._dropped[name])
                scores = weight.abs() if name not in self.scales else weight.abs() * self.scales[name].to(weight.device)
                sparsity = max(wanted, self.pattern.min_sparsity)
                mask = mask_from_scores(scores, sparsity=sparsity, pattern=self.pattern)
                torch.mul(weight, ~mask, out=self._dropped[name])
                weight.mul_(mask)
                self.masks[name] = mask
        if progress >= self.settle:
            self._settled = True
            self._dropped = {}

    def state_dict(self) -> dict[str, Any]:
        dropped = {name: value.cpu() for name, value in self._dropped.items()}
        return {**super().state_dict(), "dropped": dropped, "done": self.done, "settled": self._settled}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        super().load_state_dict(state)
        self.done, self._settled = int(state["done"]), bool(state["settled"])
        self._dropped = {name: value.to(self.weights[name].device) for name, value in state["dropped"].items()}
