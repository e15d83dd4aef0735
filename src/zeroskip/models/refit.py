"""Refit a pruned block to what the dense block gave."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .walk import Block, LinearLayer, linears

if TYPE_CHECKING:
    import torch
    from torch import nn

_WARM_UP = 5


@dataclass(frozen=True)
class RefitSettings:
    """Block reconstruction with Adam.

    Args:
        epochs: How often each batch is seen.
        least, most: Steps a block, whatever the number of batches.
        rate: Learning rate at its peak; it warms up over five steps and falls linearly to zero.
    """

    epochs: int = 2
    least: int = 60
    most: int = 240
    rate: float = 1e-3

    def steps(self, batches: int) -> int:
        """Steps a block with so many batches of calibration data."""
        return min(self.most, max(self.least, self.epochs * batches))


def refit_block(
    block: Block,
    masks: dict[str, torch.Tensor],
    forward: Callable[[int, torch.Tensor], torch.Tensor],
    inputs: Sequence[torch.Tensor],
    targets: Sequence[torch.Tensor],
    tokens: Sequence[torch.Tensor | None],
    *,
    settings: RefitSettings,
    seed: int,
) -> None:
    """Tune what is left of a block so that its output on the pruned inputs comes close to the dense model's output.

    The kept weights and the biases of the pruned layers and the block's norms move; what was dropped stays zero, and
    layers that were not pruned stay as they are. No gradient leaves the block, so the cost is a few passes over one
    block.

    Args:
        block: The block, pruned.
        masks: By layer name, (out, in) bool, of the layers that were pruned.
        forward: (batch number, hidden) -> output of the block.
        inputs: Hidden states that the pruned blocks before it give, one a batch.
        targets: What the dense model has behind this block.
        tokens: Real tokens (B, T) of each batch, or None for all.
        settings, seed: How long, how fast, in which order.
    """
    import torch

    pruned = [layer for layer in block.linears if layer.name in masks]
    stored = [(layer.parameter, _as_stored(layer, masks[layer.name])) for layer in pruned]
    parameters = _trainable(block, pruned)
    before = [parameter.requires_grad for parameter in parameters]
    rng = random.Random(seed)
    order: list[int] = []
    steps = settings.steps(len(inputs))
    try:
        for parameter in parameters:
            parameter.requires_grad_(True)
        optimiser = torch.optim.Adam(parameters, lr=settings.rate, betas=(0.9, 0.95))
        for step in range(steps):
            if not order:
                order = rng.sample(range(len(inputs)), len(inputs))
            batch = order.pop()
            for group in optimiser.param_groups:
                group["lr"] = settings.rate * min(1.0, (step + 1) / _WARM_UP) * (1 - step / steps)
            with torch.enable_grad():
                loss = _loss(forward(batch, inputs[batch]), targets[batch], tokens[batch])
                gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            optimiser.step()
            with torch.no_grad():
                for parameter, mask in stored:
                    parameter.mul_(mask)
    finally:
        for parameter, wanted in zip(parameters, before, strict=True):
            parameter.grad = None
            parameter.requires_grad_(wanted)


def _loss(output: torch.Tensor, target: torch.Tensor, real: torch.Tensor | None) -> torch.Tensor:
    """Mean over the real tokens of the squared error."""
    error = (output - target).square().sum(-1)
    return error.mean() if real is None else (error * real).sum() / real.sum()


def _as_stored(layer: LinearLayer, mask: torch.Tensor) -> torch.Tensor:
    return mask.T if layer.transposed else mask


def _trainable(block: Block, pruned: Sequence[LinearLayer]) -> list[nn.Parameter]:
    """The parameters that a refit may move: of the pruned layers, and of whatever in the block is no linear layer."""
    chosen = {id(layer.module) for layer in pruned}
    fixed = {
        id(parameter)
        for layer in linears(block.module)
        if id(layer.module) not in chosen
        for parameter in layer.module.parameters()
    }
    return [parameter for parameter in block.module.parameters() if id(parameter) not in fixed]
