"""Prune a model layer by layer, each block calibrated on the outputs of the pruned ones before it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import InvalidArgument, ZeroskipError
from ..sparsify import InputStats, Pattern, Pruner, mask_from_scores, registry, resolve_scope
from .calibration import Batch, Calibration, prepare
from .loading import LoadedModel, load, need
from .refit import RefitSettings, refit_block
from .report import LayerReport, PruneReport, versions
from .stream import Stream, capture, gather
from .targets import Sparsities, Target, targets_of
from .walk import Block, LinearLayer, blocks, prunable

if TYPE_CHECKING:
    import torch

Progress = Callable[[str, int, int], None]
REFITS = ("auto", "none", "block")
_STATISTICS_TOKENS = 16384  # enough for X^T X of any layer here; what comes beyond serves the refit
_MAX_PASSES = 16  # over a model of unknown structure: layers are calibrated in at most so many groups


@dataclass
class _Job:
    """What one call of `prune` works with."""

    loaded: LoadedModel
    pruner: Pruner
    pattern: Pattern
    sparsity: float | Mapping[str, float | str]  # as asked for
    targets: Mapping[str, Target]  # by layer name
    scope: str
    refit: str
    seed: int
    keep_zeros: bool
    layers: list[LinearLayer]
    tell: Progress
    stages: int = 0
    done: int = 0
    masks: dict[int, torch.Tensor] = field(default_factory=dict)  # by id of the parameter: shared ones are pruned once
    reports: list[LayerReport] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def step(self) -> None:
        self.done += 1
        self.tell("prune", self.done, self.stages)


def prune(
    model: Any,
    *,
    method: str = "sparsegpt",
    sparsity: Sparsities = None,
    pattern: str | Pattern = "unstructured",
    scope: str | None = None,
    calibration: Any = None,
    samples: int | None = None,
    seq_len: int | None = None,
    include: Sequence[str] | str | None = None,
    exclude: Sequence[str] | str | None = None,
    refit: str | None = "auto",
    keep_zeros: bool = False,
    tokenizer: Any = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PruneReport:
    """Prune a model in place.

    Embeddings and the head stay dense; weights that are tied stay tied. Everything about the call is checked before
    anything is computed, and nothing is written to disk.

    Args:
        model: What `models.load` gave, or a torch or Hugging Face model, or a SentenceTransformer.
        method: One of `sparsify.registry.names()`.
        sparsity: In [0, 1), of the pruned layers together; None is 0.5, or what N:M implies. Above 1 - N/M, N:M keeps
            at most N. Or a mapping of layer names or glob patterns to a sparsity or an N:M pattern each,
            `{"*.output.dense": 0.7, "*.attention.*": "8:16"}`: the first entry that matches a layer counts, and layers
            that none matches stay as they are.
        pattern: `unstructured`, `N:M` (N kept of each M), `vnm:VxN:M` or `block:RxC`.
        scope: What competes for being kept (`layer`, `row`, `global`); None is the method's own.
        calibration: Texts, a path, a name of `datasets.texts`, or tensors; None is the documentation inside this
            Python.
        samples, seq_len: Calibration sequences and tokens in each; None: 256 x 128 for an encoder, 32 x 512 for a
            decoder.
        include, exclude: Glob patterns (or parts) of layer names.
        refit: `block` tunes what is left of each block to the dense block's output; `none`; `auto` is `block` for an
            encoder pruned with calibration.
        keep_zeros: Whether what is zero already stays zero, in whatever pattern. Other methods than magnitude may give
            a place back otherwise, and a layer may end sparser than asked for with it.
        tokenizer: For a bare model with texts as calibration.
        seed: Draws calibration samples and random masks.
        progress: Called with (stage, done, total); may raise to stop, which leaves the model partly pruned.
    Returns:
        What was done, layer by layer.
    Raises:
        InvalidArgument: If an argument cannot be, or calibration holds NaN.
        ShapeError: If the pattern does not divide a layer.
        UnsupportedModel: If there is nothing to prune in it.
    """
    started = time.perf_counter()
    _check_arguments(model, samples, seq_len)
    need("torch")
    parsed = Pattern.parse(pattern)
    wanted = dict(sparsity) if isinstance(sparsity, Mapping) else parsed.sparsity_or_default(sparsity)
    pruner = registry.get(method)
    scope = resolve_scope(pruner, scope)
    if isinstance(wanted, dict) and scope == "global":
        raise InvalidArgument("prune: scope is 'global' but sparsity gives each layer its own; pass one sparsity.")
    loaded = load(model, tokenizer=tokenizer)
    layers = prunable(loaded.model, include, exclude)
    targets = targets_of(wanted, parsed, layers)
    layers = [layer for layer in layers if layer.name in targets]
    refit = _resolve_refit(refit, loaded, pruner)
    job = _Job(loaded, pruner, parsed, wanted, targets, scope, refit, seed, keep_zeros, layers, progress or _silent)
    _check_layers(job)
    data = _calibration(job, calibration, samples, seq_len)
    with _evaluating(loaded.model):
        _run(job, data)
    return _report(job, data, time.perf_counter() - started)


def _silent(_stage: str, _done: int, _total: int) -> None:
    """Progress for nobody."""


def _check_arguments(model: Any, samples: int | None, seq_len: int | None) -> None:
    if isinstance(model, (str, Path)):
        raise InvalidArgument(
            f"prune: model is {str(model)!r}, a name; pass models.load({str(model)!r}), which is then pruned in place."
        )
    if (samples is not None and samples < 1) or (seq_len is not None and seq_len < 2):
        raise InvalidArgument(f"prune: samples is {samples} and seq_len is {seq_len}; pass at least 1 and 2.")


def _calibration(job: _Job, calibration: Any, samples: int | None, seq_len: int | None) -> Calibration:
    """Calibration data in batches; none where neither the method nor the refit looks at any."""
    if job.pruner.needs == "nothing" and job.refit == "none":
        return Calibration([], "none", 0, 0)
    return prepare(
        calibration,
        tokenizer=job.loaded.tokenizer,
        kind=job.loaded.kind,
        samples=samples,
        seq_len=seq_len,
        max_length=max_length(job.loaded),
        seed=job.seed,
    )


def _report(job: _Job, data: Calibration, time_s: float) -> PruneReport:
    return PruneReport(
        method=job.pruner.name,
        sparsity=job.sparsity,
        pattern=str(job.pattern),
        scope=job.scope,
        seed=job.seed,
        refit=job.refit,
        calibration=data.source,
        samples=data.samples,
        tokens=data.tokens,
        layers=tuple(job.reports),
        time_s=time_s,
        notes=tuple(job.notes),
        versions=versions(),
    )


def _resolve_refit(refit: str | None, loaded: LoadedModel, pruner: Pruner) -> str:
    chosen = "none" if refit is None else refit
    if chosen not in REFITS:
        raise InvalidArgument(f"prune: refit is {refit!r}; choose one of: {', '.join(REFITS)}.")
    can = bool(blocks(loaded.model)) and next(loaded.model.parameters()).dtype.itemsize == 4
    if chosen == "auto":
        return "block" if can and loaded.kind == "encoder" and pruner.needs != "nothing" else "none"
    if chosen == "block" and not can:
        raise InvalidArgument(
            "prune: refit is 'block', which needs a float32 model of a known family; pass refit='none'."
        )
    return chosen


def _check_layers(job: _Job) -> None:
    """Everything about the weights that can be wrong, before the first of them is touched."""
    import torch

    seen: dict[int, str] = {}
    for layer in job.layers:
        job.targets[layer.name].pattern.check_shape(layer.shape, where=f"prune {layer.name}")
        if not bool(torch.isfinite(layer.parameter).all()):
            raise InvalidArgument(f"prune: weight of {layer.name} holds NaN or Inf; load the model again.")
        first = seen.setdefault(id(layer.parameter), layer.name)
        if first != layer.name:
            job.notes.append(f"{layer.name} shares its weight with {first} and is pruned with it.")


def max_length(loaded: LoadedModel) -> int:
    """The most tokens of a text that the model takes."""
    config = getattr(loaded.model, "config", None)
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None) or 1 << 20
    # RoBERTa and MPNet count positions from the padding index on, so two of them are no room for tokens.
    return min(
        int(positions) - (2 if loaded.family in ("roberta", "mpnet") else 0),
        int(loaded.extra.get("max_seq_length") or 1 << 20),
    )


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    """Dropout off; what was in training mode goes back to it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def _run(job: _Job, data: Calibration) -> None:
    if not data.batches:
        _without_data(job)
        return
    chosen = {layer.name for layer in job.layers}
    stages = [
        Block(b.name, b.module, tuple(x for x in b.linears if x.name in chosen)) for b in blocks(job.loaded.model)
    ]
    inside = {layer.name for block in stages for layer in block.linears}
    outside = [layer for layer in job.layers if layer.name not in inside]
    size = max(1, -(-len(outside) // _MAX_PASSES))
    groups = [outside[at : at + size] for at in range(0, len(outside), size)]
    job.stages = (len(stages) if inside else 0) + len(groups)
    job.tell("prune", 0, job.stages)
    if inside and job.scope == "global":
        _without_data(job, count=False)
    if inside:
        _through_blocks(job, stages, data)
    for group in groups:
        stats = _gather_model(job, group, data.batches)
        for layer in group:
            _prune_layer(job, layer, stats.get(layer.name))
        job.step()


def _without_data(job: _Job, *, count: bool = True) -> None:
    """Methods that look at the weights alone; the only ones that can rank all layers together."""
    if count:
        job.stages = len(job.layers)
        job.tell("prune", 0, job.stages)
    masks: list[torch.Tensor | None] = [None] * len(job.layers)
    if job.scope == "global":
        unique = list({id(layer.parameter): layer for layer in job.layers}.values())
        scores = [job.pruner.scores(layer.weight(), seed=job.seed + i) for i, layer in enumerate(unique)]  # type: ignore[attr-defined]
        together = mask_from_scores(
            scores, sparsity=job.targets[unique[0].name].sparsity, pattern=job.pattern, scope="global"
        )
        by_parameter = {id(layer.parameter): mask for layer, mask in zip(unique, together, strict=True)}
        masks = [by_parameter[id(layer.parameter)] for layer in job.layers]
    for layer, mask in zip(job.layers, masks, strict=True):
        _prune_layer(job, layer, None, mask=mask)
        if count:
            job.step()


def _through_blocks(job: _Job, stages: Sequence[Block], data: Calibration) -> None:
    """Block after block; the activations of the calibration data are kept, the statistics only of one block."""
    import torch

    stream = capture(job.loaded.model, stages, data.batches)
    dense = list(stream.hidden) if job.refit != "none" else []
    last = max(index for index, block in enumerate(stages) if block.linears)
    for index, block in enumerate(stages[: last + 1]):
        original = copy.deepcopy(block.module) if dense else block.module
        if block.linears:
            stats: dict[str, InputStats] = {}
            if job.pruner.needs != "nothing":
                some = range(0, len(data.batches), max(1, data.tokens // _STATISTICS_TOKENS))
                passes = [partial(stream.run, block.module, index, at, stream.hidden[at]) for at in some]
                masks = [stream.masks[at] for at in some]
                stats = gather(block.linears, passes, masks, full=job.pruner.needs == "hessian")
            for layer in block.linears:
                _prune_layer(job, layer, stats.get(layer.name))
        with torch.no_grad():
            for at, hidden in enumerate(dense):
                dense[at] = stream.run(original, index, at, hidden)
        if dense and block.linears:
            _refit(job, block, stream, index, dense)
        if index < last:
            with torch.no_grad():
                for at, hidden in enumerate(stream.hidden):
                    stream.hidden[at] = stream.run(block.module, index, at, hidden)
        job.step()
    while job.done < len(stages):
        job.step()


def _refit(job: _Job, block: Block, stream: Stream, index: int, targets: Sequence[torch.Tensor]) -> None:
    refit_block(
        block,
        {layer.name: job.masks[id(layer.parameter)] for layer in block.linears},
        partial(stream.run, block.module, index),
        stream.hidden,
        targets,
        stream.masks,
        settings=RefitSettings(),
        seed=job.seed + index,
    )


def _gather_model(job: _Job, group: Sequence[LinearLayer], batches: Sequence[Batch]) -> dict[str, InputStats]:
    """Statistics of layers that are in no known block: the whole model runs once for each group of them."""
    model = job.loaded.model
    if job.pruner.needs == "nothing":
        return {}
    named = hasattr(model, "config")  # Hugging Face takes names, a plain torch model its argument
    passes = [
        partial(model, **b) if named or list(b) != ["input_ids"] else partial(model, b["input_ids"]) for b in batches
    ]
    masks = [batch["attention_mask"].bool() if "attention_mask" in batch else None for batch in batches]
    try:
        stats = gather(group, passes, masks, full=job.pruner.needs == "hessian")
    except ZeroskipError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise InvalidArgument(
            f"prune: the model does not take the calibration data ({' '.join(str(error).split())[:160]}); "
            "pass calibration as tensors or dicts of its own arguments."
        ) from error
    idle = [layer.name for layer in group if layer.name not in stats and id(layer.parameter) not in job.masks]
    if idle:
        raise InvalidArgument(
            f"prune: calibration never reaches {idle[0]}; leave it out with exclude=, or pass other calibration data."
        )
    return stats


def _prune_layer(job: _Job, layer: LinearLayer, stats: InputStats | None, *, mask: torch.Tensor | None = None) -> None:
    """Prune one layer in place and note what it cost; a weight that was pruned under another name is left alone."""
    if id(layer.parameter) in job.masks:
        return
    before = layer.weight()
    if mask is None:
        seed = job.seed + len(job.masks)
        target = job.targets[layer.name]
        done = job.pruner.prune(
            before, stats, sparsity=target.sparsity, pattern=target.pattern, scope=job.scope, seed=seed
        )
        after, mask = done.weight, done.mask
    else:
        after = before * mask
    if job.keep_zeros:
        mask = mask & (before != 0)
        after = after * mask
    error = _error(before, after, stats)
    layer.assign(after)
    job.masks[id(layer.parameter)] = mask
    job.reports.append(LayerReport(layer.name, layer.shape, 1 - int(mask.sum()) / mask.numel(), error))


def _error(before: torch.Tensor, after: torch.Tensor, stats: InputStats | None) -> float | None:
    """||(W - W') X|| / ||W X|| from X^T X."""
    if stats is None or stats.gram is None:
        return None
    change = before - after
    lost = float(((change @ stats.gram) * change).sum())
    whole = float(((before @ stats.gram) * before).sum())
    return (max(lost, 0.0) / whole) ** 0.5 if whole > 0 else 0.0
