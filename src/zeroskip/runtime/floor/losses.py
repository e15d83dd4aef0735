"""What each rung of each layer would cost in quality, were it the only change: measured once a layer, then scaled.

Each layer alone is pruned with SparseGPT to one sparsity, and the cosine of the embeddings of some held-back lines to
those of the model as given is measured: its *sensitivity*. The other rungs follow from it by the squares of the
relative errors of the layer's output, which cost no pass: pruned by weights times input norms for other sparsities
and patterns, rounded as they would be for value types.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...sparsify import InputStats, mask_from_scores
from ...sparsify import registry as pruners
from ..measure import Progress
from ..values import Values
from .times import sparsity_of, steps_for

if TYPE_CHECKING:
    import torch

    from ...models.stream import Stream
    from ...models.walk import Block, LinearLayer

# The sparsity at which a dense layer's sensitivity is measured: in the middle of the ladder.
_ANCHOR = 0.6
_ROWS = 4096  # tokens of calibration, enough for X^T X and the errors
# Cosines below this are noise of float32; no layer is taken to be quite without effect.
_LEAST = 1e-7
# No layer counts as less sensitive than this share of the median: one sample of lines may flatter it.
_LEAST_SHARE = 0.1
_LARGEST_CODE = {"int8": 127, "int16": 32767}


@dataclass(frozen=True)
class LayerLosses:
    """Predicted losses of cosine of one layer: by what it is pruned to, and by (value type, activations)."""

    prune: Mapping[float | str, float]
    values: Mapping[tuple[str, str], float]


def losses_of(
    loaded: Any,
    names: Sequence[str],
    values: Sequence[Values],
    *,
    calibration: Sequence[str],
    held_back: Sequence[str],
    progress: Progress,
) -> dict[str, LayerLosses]:
    """The losses of each layer.

    Args:
        loaded: A `models.LoadedModel` of a known encoder; its weights change meanwhile and are put back.
        names: Of the layers.
        values: The value types of the rungs.
        calibration: Lines to prune with.
        held_back: Lines to measure on; others than those of the calibration.
        progress: Called with ("losses", done, total).
    """
    import torch

    from ... import models
    from ...models.stream import capture

    wanted = set(names)
    stages = models.blocks(loaded.model)
    with torch.no_grad():
        fits = capture(loaded.model, stages, batches_of(loaded, calibration, most=_ROWS))
        checks = capture(loaded.model, stages, batches_of(loaded, held_back))
        after = _Rest(checks, stages, loaded.extra.get("pooling") or "mean")
        raw: dict[str, tuple[float, float, dict[Any, float], dict[Any, float]]] = {}
        for index, block in enumerate(stages):
            inputs = _inputs(fits, block, index)
            for layer in block.linears:
                if layer.name in wanted:
                    raw[layer.name] = _one(layer, inputs[layer.name], values, after, index)
                    progress("losses", len(raw), len(wanted))
            after.advance(index)
    return _scaled(raw)


def batches_of(loaded: Any, lines: Sequence[str], *, most: int = 1 << 30) -> list[dict[str, torch.Tensor]]:
    """Padded batches of lines of like length, of at most `most` tokens in all."""
    from ...models.calibration import prepare

    limit = int(loaded.extra.get("max_seq_length") or 128)
    data = prepare(
        list(lines),
        tokenizer=loaded.tokenizer,
        kind="encoder",
        samples=len(lines),
        seq_len=min(limit, 128),
        max_length=limit,
        seed=0,
    )
    share = max(1, -(-data.tokens // most))
    return data.batches[::share]


class _Rest:
    """The held-back lines on their way through the model as given, and what is left of the way with a layer changed."""

    def __init__(self, stream: Stream, stages: Sequence[Block], pooling: str) -> None:
        self._stream, self._stages, self._pooling = stream, stages, pooling
        self._given = self._from(0)

    def advance(self, index: int) -> None:
        """Behind block number `index`."""
        for at, hidden in enumerate(self._stream.hidden):
            self._stream.hidden[at] = self._stream.run(self._stages[index].module, index, at, hidden)

    def loss(self, index: int) -> float:
        """1 - mean cosine of the embeddings, the model being as it is from block `index` on."""
        import torch

        cosines = torch.nn.functional.cosine_similarity(self._from(index), self._given)
        return max(_LEAST, 1.0 - float(cosines.double().mean()))

    def _from(self, first: int) -> torch.Tensor:
        import torch

        pooled = []
        for at, hidden in enumerate(self._stream.hidden):
            for index in range(first, len(self._stages)):
                hidden = self._stream.run(self._stages[index].module, index, at, hidden)
            pooled.append(_pool(hidden, self._stream.masks[at], self._pooling))
        return torch.cat(pooled)


def _pool(hidden: torch.Tensor, mask: torch.Tensor | None, how: str) -> torch.Tensor:
    """(B, T, D) to (B, D): of the first token, or the mean or maximum over the real ones."""
    if how == "cls":
        return hidden[:, 0]
    if mask is None:
        return hidden.amax(1) if how == "max" else hidden.mean(1)
    real = mask[..., None]
    if how == "max":
        return hidden.masked_fill(~real, float("-inf")).amax(1)
    return (hidden * real).sum(1) / real.sum(1)


def _inputs(stream: Stream, block: Block, index: int) -> dict[str, torch.Tensor]:
    """What the linear layers of a block are given (tokens, K); the stream then stands behind the block."""
    import torch

    from ...models.stream import real_tokens

    seen: dict[str, list[torch.Tensor]] = {layer.name: [] for layer in block.linears}
    mask: torch.Tensor | None = None

    def hook(name: str) -> Any:
        return lambda _module, inputs: seen[name].append(real_tokens(inputs[0], mask))

    with ExitStack() as stack:
        for layer in block.linears:
            stack.callback(layer.module.register_forward_pre_hook(hook(layer.name)).remove)
        for at, hidden in enumerate(stream.hidden):
            mask = stream.masks[at]
            stream.hidden[at] = stream.run(block.module, index, at, hidden)
    return {name: torch.cat(parts) for name, parts in seen.items()}


def _one(
    layer: LinearLayer, x: torch.Tensor, values: Sequence[Values], after: _Rest, index: int
) -> tuple[float, float, dict[Any, float], dict[Any, float]]:
    """Of one layer: its loss at the anchor, the squared error there, and the squared errors of all rungs.

    Errors of pruning are relative to the anchor's, by the same cheap method; those of rounding are absolute.
    """
    weight = layer.weight().clone()
    given = sparsity_of(weight.numpy())
    anchor = _ANCHOR if given < _ANCHOR - 0.1 else (1 + given) / 2
    stats = InputStats(weight.shape[1], full=True)
    stats.add(x)
    pruned = pruners.get("sparsegpt").prune(weight, stats, sparsity=anchor, pattern="unstructured", scope=None, seed=0)
    coarse = pruned.weight * (weight != 0)
    try:
        layer.assign(coarse)
        loss = after.loss(index)
    finally:
        layer.assign(weight)
    y = x @ weight.T
    norms = stats.squares.sqrt()

    def cheap(step: float | str) -> float:
        pattern, share = (step, None) if isinstance(step, str) else ("unstructured", step)
        mask = mask_from_scores(weight.abs() * norms, sparsity=share, pattern=pattern, scope="layer")
        return _error(x @ (weight * mask).T, y)

    scale = max(cheap(anchor), 1e-12)
    steps = {step: 0.0 if step == 0.0 else cheap(step) / scale for step in steps_for(weight.numpy())}
    rounded = {(item.dtype, item.x_dtype): _rounding(item, layer.name, weight, x, y) for item in values}
    return loss, max(_error(x @ coarse.T, y), 1e-12), steps, rounded


def _rounding(values: Values, name: str, weight: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> float:
    """Squared relative error of a layer's output when its weights, and perhaps x, are rounded."""
    import torch

    if values.dtype == values.x_dtype == "float32":
        return 0.0
    stored = values.store(np.ascontiguousarray(weight.numpy()), "dense", name=name)
    seen = x
    if values.x_dtype == "bfloat16":
        seen = x.bfloat16().float()
    elif values.x_dtype in _LARGEST_CODE:
        scale = x.abs().amax(1, keepdim=True).clamp_min(1e-12) / _LARGEST_CODE[values.x_dtype]
        seen = torch.round(x / scale) * scale
    return _error(seen @ torch.from_numpy(stored.to_dense()).T, y)


def _error(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """||found - wanted||^2 / ||wanted||^2."""
    return float((found - wanted).square().sum() / wanted.square().sum().clamp_min(1e-30))


def _scaled(raw: Mapping[str, tuple[float, float, dict[Any, float], dict[Any, float]]]) -> dict[str, LayerLosses]:
    least = _LEAST_SHARE * float(np.median([loss for loss, _, _, _ in raw.values()] or [0.0]))
    found = {}
    for name, (loss, error, steps, rounded) in raw.items():
        counted = max(loss, least)
        found[name] = LayerLosses(
            {step: counted * share for step, share in steps.items()},
            {key: counted * square / error for key, square in rounded.items()},
        )
    return found
