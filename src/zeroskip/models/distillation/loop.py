"""The training loop of a distillation, over any student and teacher that give `Outputs`."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..._errors import InvalidArgument
from .losses import LossWeights, Outputs, cosine, distill_loss

if TYPE_CHECKING:
    import torch

    from ...sparsify.gradual import MaskKeeper

    Forward = Callable[[torch.Tensor, torch.Tensor], Outputs]
    Batch = tuple[torch.Tensor, torch.Tensor]

DECAYS = ("linear", "cosine")


@dataclass(frozen=True)
class LoopSettings:
    """How a student is trained.

    Args:
        rate: Learning rate of AdamW at its peak.
        warm_up: Share of the training in which it rises.
        decay: How it falls to zero then: `linear` or `cosine`.
        weight_decay: Of AdamW, on the pruned weights alone.
        clip: Largest norm of the gradient.
        losses: How much each term counts.
        autocast: bfloat16 for the matrix products (GPU).
    """

    rate: float = 1e-3
    warm_up: float = 0.03
    decay: str = "linear"
    weight_decay: float = 0.0
    clip: float = 1.0
    losses: LossWeights = field(default_factory=LossWeights)
    autocast: bool = False

    def rate_at(self, progress: float) -> float:
        """The learning rate after that share of the training."""
        if progress < self.warm_up:
            return self.rate * max(progress / self.warm_up, 0.01)
        left = (1 - progress) / (1 - self.warm_up)
        return self.rate * (left if self.decay == "linear" else (1 - math.cos(math.pi * left)) / 2)


@dataclass(frozen=True)
class Budget:
    """When to stop: after so many steps, or so many seconds, whichever comes first."""

    steps: int | None = None
    seconds: float | None = None

    def progress(self, steps: int, seconds: float) -> float:
        """Share that is used up, in [0, 1]."""
        shares = [0.0]
        if self.steps is not None:
            shares.append(steps / self.steps)
        if self.seconds is not None:
            shares.append(seconds / self.seconds)
        return min(1.0, max(shares))


class Trainer:
    """One student, its optimiser and its masks.

    Args:
        student, teacher: (ids, real) -> Outputs; the teacher is run without gradients.
        parameters: By name, what is trained; the pruned weights among them are those of `keeper`.
        keeper: Keeps or moves the masks.
        settings: How.
    """

    def __init__(
        self,
        student: Forward,
        teacher: Forward,
        parameters: Mapping[str, torch.nn.Parameter],
        keeper: MaskKeeper,
        settings: LoopSettings,
    ) -> None:
        import torch

        if settings.decay not in DECAYS:
            raise InvalidArgument(f"distill: decay is {settings.decay!r}; choose one of: {', '.join(DECAYS)}.")
        self.student, self.teacher, self.keeper, self.settings = student, teacher, keeper, settings
        self.parameters = dict(parameters)
        self.steps = 0
        self.seconds = 0.0
        self._wanted: list[torch.Tensor] = []
        pruned = [p for name, p in self.parameters.items() if name in keeper.weights]
        others = [p for name, p in self.parameters.items() if name not in keeper.weights]
        groups = [{"params": pruned, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.device = next(iter(self.parameters.values())).device
        self.optimiser = torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.rate,
            betas=(0.9, 0.98),
            fused=self.device.type == "cuda",
        )

    def step(self, batch: Batch, progress: float) -> torch.Tensor:
        """One step of the optimiser; returns the loss, on the device."""
        import torch

        rate = self.settings.rate_at(progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.autocast):
            with torch.no_grad():
                wanted = self.teacher(*batch)
            loss = distill_loss(self.student(*batch), wanted, self.settings.losses, progress)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(list(self.parameters.values()), self.settings.clip)
        self.optimiser.step()
        self.keeper.step(progress)
        self.steps += 1
        return loss.detach()

    def held_back(self, batches: list[Batch]) -> float:
        """Mean cosine of the pooled vectors over some batches, the same at each call: the teacher runs on them once."""
        import torch

        with torch.no_grad(), torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.settings.autocast):
            if not self._wanted:
                self._wanted = [self.teacher(*batch).pooled for batch in batches]
            pairs = zip(batches, self._wanted, strict=True)
            found = [cosine(self.student(*batch).pooled, wanted) for batch, wanted in pairs]
        return float(torch.cat(found).mean())

    def values(self) -> dict[str, torch.Tensor]:
        """A copy of what is trained."""
        return {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    def assign(self, values: Mapping[str, torch.Tensor]) -> None:
        """Put such a copy back."""
        import torch

        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(values[name])


@dataclass
class Best:
    """The best state seen on held-back text, among those whose masks are final."""

    cosine: float = -1.0
    step: int = 0
    worse: int = 0  # looks since then
    values: dict[str, Any] = field(default_factory=dict)

    def see(self, found: float, trainer: Trainer) -> None:
        """Keep the state of now if it is better."""
        if found > self.cosine:
            self.cosine, self.step, self.worse, self.values = found, trainer.steps, 0, trainer.values()
        else:
            self.worse += 1


@dataclass(frozen=True)
class Row:
    """What `train` tells now and then."""

    step: int
    seconds: float
    progress: float
    loss: float
    cosine: float
    sparsity: float


def train(
    trainer: Trainer,
    batches: Iterator[Batch],
    held_back: list[Batch],
    budget: Budget,
    *,
    best: Best | None = None,
    check_every: float = 0.05,
    patience: int | None = None,
    tell: Callable[[Row], None] | None = None,
    tick: Callable[[float, float | None], None] | None = None,
) -> Best:
    """Train until the budget is used up or the held-back text gets no better; the best state is put back.

    Args:
        trainer: With what it did before counted, where it goes on.
        batches: Without end.
        held_back: Batches that are never trained on.
        budget: Steps, seconds, or both.
        best: From before.
        check_every: Share of the budget between two looks at the held-back text.
        patience: Stop after so many looks without a gain; None goes on to the end.
        tell: Given a row at each look.
        tick: Given (progress, loss) after each step, when everything fits together; may raise to stop. The loss is None
            at most steps on a GPU, which would have to be waited for.
    Returns:
        The best state, which the student now has.
    """
    best = best or Best()
    began = time.perf_counter() - trainer.seconds
    progress = budget.progress(trainer.steps, trainer.seconds)
    # The GPU is waited for every ten steps, so that the clock does not run ahead of it.
    wait = 10 if trainer.device.type == "cuda" else 1
    while progress < 1:
        next_look = check_every * (math.floor(progress / check_every + 1e-9) + 1)
        loss = trainer.step(next(batches), progress)
        known = float(loss) if trainer.steps % wait == 0 else None
        trainer.seconds = time.perf_counter() - began
        progress = budget.progress(trainer.steps, trainer.seconds)
        if progress >= 1:
            trainer.keeper.finish()
        if progress >= min(next_look - 1e-9, 1):
            found = trainer.held_back(held_back)
            if trainer.keeper.settled:
                best.see(found, trainer)
            if tell is not None:
                tell(Row(trainer.steps, trainer.seconds, progress, float(loss), found, trainer.keeper.sparsity))
        if tick is not None:
            tick(progress, known)
        if patience is not None and best.worse >= patience:
            break
    if best.values:
        trainer.assign(best.values)
    return best
