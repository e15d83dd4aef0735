"""What a student is compared with its teacher by. Plain tensors in, a number out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Outputs:
    """What a forward pass of an encoder gives.

    Args:
        hidden: Hidden states (B, T, D) behind each block.
        pooled: One vector (B, D) a text.
        real: The tokens (B, T) that are no padding, bool.
        attentions: Attention probabilities (B, H, T, T) of each block; empty where nobody asked for them.
    """

    hidden: Sequence[torch.Tensor]
    pooled: torch.Tensor
    real: torch.Tensor
    attentions: Sequence[torch.Tensor] = ()


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts.

    Args:
        cosine: 1 - cosine of the pooled vectors.
        hidden: Relative squared error of the hidden states, mean over the blocks.
        hidden_end: The same at the end of the training; between, it changes linearly.
        similarity: Squared difference of the cosines within a batch.
        attention: Cross entropy of the attention probabilities over the teacher's own entropy.
    """

    cosine: float = 10.0
    hidden: float = 1.0
    hidden_end: float = 0.2
    similarity: float = 0.0
    attention: float = 0.0


def cosine(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Cosine of each row (B, D) with its counterpart, in float32."""
    import torch

    return torch.nn.functional.cosine_similarity(student.float(), teacher.float(), dim=-1)


def hidden_loss(student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], real: torch.Tensor) -> torch.Tensor:
    """Squared error over the real tokens, of each block relative to the teacher's squares; mean over the blocks."""
    import torch

    weights = real[..., None].float()
    terms = []
    for ours, theirs in zip(student, teacher, strict=True):
        wanted = theirs.float()
        error = ((ours.float() - wanted).square() * weights).sum()
        terms.append(error / ((wanted.square() * weights).sum() + 1e-6))
    return torch.stack(terms).mean()


def similarity_loss(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Mean squared difference between the matrices of cosines (B, B) within a batch."""
    from torch.nn.functional import normalize

    ours, theirs = normalize(student.float(), dim=-1), normalize(teacher.float(), dim=-1)
    return (ours @ ours.T - theirs @ theirs.T).square().mean()


def attention_loss(
    student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor], real: torch.Tensor
) -> torch.Tensor:
    """Kullback-Leibler divergence of the student's attention from the teacher's, mean over real queries, heads and
    blocks."""
    import torch

    rows = real[:, None, :].float()
    terms = []
    for ours, theirs in zip(student, teacher, strict=True):
        wanted = theirs.float()
        divergence = (wanted * ((wanted + 1e-9).log() - (ours.float() + 1e-9).log())).sum(-1)
        terms.append((divergence * rows).sum() / (rows.sum() * ours.shape[1]))
    return torch.stack(terms).mean()


def distill_loss(student: Outputs, teacher: Outputs, weights: LossWeights, progress: float = 0.0) -> torch.Tensor:
    """All terms together.

    Args:
        student, teacher: Of the same batch.
        weights: How much each term counts.
        progress: Share of the training that is done, in [0, 1].
    """
    total = weights.cosine * (1 - cosine(student.pooled, teacher.pooled)).mean()
    hidden = weights.hidden + (weights.hidden_end - weights.hidden) * progress
    if hidden:
        total = total + hidden * hidden_loss(student.hidden, teacher.hidden, student.real)
    if weights.similarity:
        total = total + weights.similarity * similarity_loss(student.pooled, teacher.pooled)
    if weights.attention:
        total = total + weights.attention * attention_loss(student.attentions, teacher.attentions, student.real)
    return total
