"""Stream calibration activations through a model block by block, one block's statistics in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .._errors import UnsupportedModel
from ..sparsify import InputStats
from .walk import Block, LinearLayer, base_of

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass
class Stream:
    """The calibration batches as they stand before some block.

    Args:
        hidden: One tensor (B, T, D) a batch.
        calls: Of each block and batch, the other arguments that the model passes (masks, positions), shared, not
            copied.
        masks: Of each batch the real tokens (B, T) bool, or None where nothing is padded.
        wraps: Of each block, whether it returns a tuple.
    """

    hidden: list[torch.Tensor]
    calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]]
    masks: list[torch.Tensor | None]
    wraps: list[bool] = field(default_factory=list)

    def run(self, module: nn.Module, block: int, batch: int, hidden: torch.Tensor) -> torch.Tensor:
        """The output of `module` in the place of block number `block` for one batch."""
        args, kwargs = self.calls[block][batch]
        out = module(hidden, *args, **kwargs)
        result: torch.Tensor = out[0] if isinstance(out, tuple) else out
        return result


class _Stop(Exception):
    """Raised by a hook once a forward pass has shown all that was wanted of it."""


def capture(model: Any, blocks: Sequence[Block], batches: Sequence[dict[str, torch.Tensor]]) -> Stream:
    """Run what comes before the blocks, and note what each block is called with.

    The blocks themselves are passed over (each hands its input on), so this costs little more than the embeddings;
    their own arguments are noted one by one because some models mask some layers differently.

    Raises:
        UnsupportedModel: If the model does not call its blocks in order, each with the output of the one before it.
    """
    import torch

    stream = Stream([], [[] for _ in blocks], [batch.get("attention_mask") for batch in batches])
    stream.masks = [mask.bool() if mask is not None and not bool(mask.all()) else None for mask in stream.masks]
    base = base_of(model)
    with torch.no_grad(), ExitStack() as stack:
        stream.wraps = _output_forms(base, blocks, batches[0])
        for index, block in enumerate(blocks):
            stack.enter_context(_replaced_forward(block.module, _passer(stream, index, len(blocks))))
        for batch in batches:
            try:
                base(**batch, **_no_cache(base))
            except _Stop:
                continue
    if any(len(calls) != len(batches) for calls in stream.calls):
        raise UnsupportedModel(
            f"prune: {type(model).__name__} does not call its blocks one after the other; pass exclude or report it."
        )
    return stream


def _passer(stream: Stream, index: int, count: int) -> Callable[..., Any]:
    """A forward that notes its arguments and hands the hidden states on."""

    def forward(*args: Any, **kwargs: Any) -> Any:
        hidden, rest = (args[0], args[1:]) if args else (kwargs.pop("hidden_states"), ())
        if index == 0:
            stream.hidden.append(hidden)
        stream.calls[index].append((rest, kwargs))
        if index == count - 1:
            raise _Stop
        return (hidden,) if stream.wraps[index] else hidden

    return forward


def _output_forms(base: Any, blocks: Sequence[Block], batch: dict[str, torch.Tensor]) -> list[bool]:
    """Whether each block returns a tuple, seen on one short real pass."""
    seen: dict[int, bool] = {}
    short = {key: value[:1, :4] for key, value in batch.items()}
    with ExitStack() as stack:
        for index, block in enumerate(blocks):

            def note(_module: Any, _inputs: Any, output: Any, index: int = index) -> None:
                seen[index] = isinstance(output, tuple)

            stack.callback(block.module.register_forward_hook(note).remove)
        base(**short, **_no_cache(base))
    return [seen.get(index, False) for index in range(len(blocks))]


def _no_cache(base: Any) -> dict[str, bool]:
    """Switch the key/value cache off where the model has one: it would keep every layer's activations."""
    return {"use_cache": False} if getattr(getattr(base, "config", None), "use_cache", None) is not None else {}


@contextmanager
def _replaced_forward(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    module.forward = forward
    try:
        yield
    finally:
        del module.forward


def gather(
    layers: Sequence[LinearLayer],
    passes: Sequence[Callable[[], Any]],
    masks: Sequence[torch.Tensor | None],
    *,
    full: bool,
) -> dict[str, InputStats]:
    """Statistics of the inputs of `layers`, by name, over several forward passes.

    Layers that are given the very same tensor (query, key and value; gate and up) share one set of sums, and a pass is
    cut short once the last layer has seen its input.

    Args:
        layers: Whose inputs to look at; a module used several times in a pass is counted each time.
        passes: Each runs the model, or the block, on one batch.
        masks: Of each pass the real tokens (B, T), or None for all.
        full: Keep X^T X and not its diagonal alone.
    """
    import torch

    watch = _Watch(full)
    with torch.no_grad(), ExitStack() as stack:
        for layer in layers:
            hook = layer.module.register_forward_pre_hook(
                lambda _module, inputs, layer=layer: watch.see(layer, inputs[0])
            )
            stack.callback(hook.remove)
        for run, mask in zip(passes, masks, strict=True):
            watch.begin(mask)
            try:
                run()
            except _Stop:
                continue
    return {name: watch.stats[leader] for name, leader in watch.leaders.items()}


class _Watch:
    """The state of one `gather`: which layers share an input is learned on the first pass."""

    def __init__(self, full: bool) -> None:
        self.full = full
        self.stats: dict[str, InputStats] = {}
        self.leaders: dict[str, str] = {}
        self.calls = 0  # of the first pass
        self._pass = -1
        self._seen = 0
        self._mask: torch.Tensor | None = None
        self._last: tuple[torch.Tensor, str] | None = None

    def begin(self, mask: torch.Tensor | None) -> None:
        self._pass += 1
        self._seen = 0
        self._mask = mask
        self._last = None

    def see(self, layer: LinearLayer, x: torch.Tensor) -> None:
        self._seen += 1
        if self._pass == 0:
            self.calls += 1
            shared = self._last is not None and self._last[0] is x
            leader = self._last[1] if shared and self._last else layer.name
            self.leaders.setdefault(layer.name, leader)
            self._last = (x, self.leaders[layer.name])
        if self.leaders.get(layer.name, layer.name) == layer.name:
            self.leaders.setdefault(layer.name, layer.name)
            if layer.name not in self.stats:
                self.stats[layer.name] = InputStats(x.shape[-1], full=self.full, device=x.device)
            self.stats[layer.name].add(real_tokens(x, self._mask), where=f"prune {layer.name}")
        if self._pass > 0 and self._seen == self.calls:
            raise _Stop


def real_tokens(x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """The rows (tokens, D) of `x` that are no padding; `x` is (B, T, D) or (B * T, D)."""
    rows = x.reshape(-1, x.shape[-1])
    if mask is None or mask.numel() != len(rows):
        return rows
    return rows[mask.reshape(-1)]
