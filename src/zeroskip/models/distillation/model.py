"""An encoder as a distillation sees it: a forward pass that gives `Outputs`, and texts as batches for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ..._errors import InvalidArgument, UnsupportedModel
from ..loading import LoadedModel
from ..walk import base_of, blocks
from .data import assemble, corpus_of, cut
from .losses import Outputs

if TYPE_CHECKING:
    import torch

    from .loop import Batch

_HELD_MOST = {"cpu": 64}  # paragraphs held back, whatever the share: to look at them costs about ten steps on a CPU
_HELD_ELSE = 200


def check_encoder(loaded: LoadedModel, *, where: str = "distill") -> None:
    """Refuse what cannot be distilled.

    Raises:
        UnsupportedModel: If it is no encoder of a known family, or has no tokenizer.
    """
    if loaded.kind != "encoder" or not blocks(loaded.model):
        raise UnsupportedModel(
            f"{where}: {loaded.name} is a {loaded.kind} of family {loaded.family}; only encoders of a known family are "
            "distilled. Prune it without distillation, or train it in a loop of your own with "
            "zeroskip.sparsify.GradualPruner."
        )
    if loaded.tokenizer is None:
        raise UnsupportedModel(f"{where}: {loaded.name} has no tokenizer; pass models.load(model, tokenizer=...).")


def encoder_forward(loaded: LoadedModel) -> Callable[[torch.Tensor, torch.Tensor], Outputs]:
    """(ids, real) -> hidden states behind every block, and the vectors as the model's pooling says."""
    base = base_of(loaded.model)
    pooling = loaded.extra.get("pooling", "mean")

    def forward(ids: torch.Tensor, real: torch.Tensor) -> Outputs:
        found = base(input_ids=ids, attention_mask=real.long(), output_hidden_states=True)
        hidden = found.hidden_states[1:]
        return Outputs(hidden, pool(hidden[-1], real, pooling), real)

    return forward


def pool(hidden: torch.Tensor, real: torch.Tensor, pooling: str) -> torch.Tensor:
    """One vector (B, D) a text, in float32, from hidden states (B, T, D)."""
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    weights = real[..., None]
    if pooling == "max":
        return hidden.masked_fill(~weights, float("-inf")).amax(1)
    return (hidden * weights).sum(1) / weights.sum(1)


class TextBatches:
    """Texts as batches of a model: some held back, the others drawn at random.

    Args:
        loaded: With a tokenizer.
        texts: Paragraphs.
        held_back: Share of them that is never trained on.
        tokens: In a batch, about.
        limit: Tokens in a text, special ones counted.
        device: Where the batches shall be.
        seed: Decides what is held back and what is drawn.
    Raises:
        InvalidArgument: If there is too little text.
        UnsupportedModel: If the tokenizer puts something else than one token before and one behind a text.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        texts: Sequence[str],
        *,
        held_back: float,
        tokens: int,
        limit: int,
        device: torch.device,
        seed: int,
    ) -> None:
        import torch

        tokenizer = loaded.tokenizer
        before, after = _special(tokenizer)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
        self._special = {"before": before, "after": after, "pad": pad}
        self._tokens, self._limit, self._seed = tokens, limit - 2, seed
        self._multiple = 8 if device.type == "cuda" else 1
        order = np.random.default_rng([seed, 1]).permutation(len(texts))
        count = min(max(1, round(held_back * len(texts))), _HELD_MOST.get(device.type, _HELD_ELSE))
        if len(texts) < 2 * count:
            raise InvalidArgument(
                f"distill: texts hold {len(texts)} paragraphs of which {count} are held back; pass more text."
            )

        def encode(parts: Sequence[str]) -> list[list[int]]:
            found: list[list[int]] = tokenizer(list(parts), add_special_tokens=False, verbose=False).input_ids
            return found

        self._corpus = corpus_of([texts[i] for i in order[count:]], encode, self._limit)
        self._held = corpus_of([texts[i] for i in order[:count]], encode, self._limit)
        if not len(self._corpus.weights) or not len(self._held.weights):
            raise InvalidArgument("distill: texts hold no word that the tokenizer knows; pass running text.")
        self._ids = torch.as_tensor(self._corpus.ids, device=device)
        self.held_lines, self.tokens, self._device = count, len(self._corpus.ids), device

    def stream(self, skip: int = 0) -> Iterator[Batch]:
        """Batches without end, always the same ones in the same order; the first `skip` are passed over."""
        drawn = self._corpus.batches(np.random.default_rng([self._seed, 2]), tokens=self._tokens, limit=self._limit)
        for starts, lengths in islice(drawn, skip, None):
            yield self._batch(self._ids, starts, lengths)

    def held(self) -> list[Batch]:
        """What is held back: each paragraph whole, and a single sentence out of each."""
        import torch

        corpus = self._held
        first = corpus.paragraphs[:-1]
        whole, singles = corpus.whole(self._limit), (corpus.sentences[first], np.diff(corpus.sentences)[first])
        starts = np.concatenate([whole[0], singles[0]])
        lengths = np.minimum(np.concatenate([whole[1], singles[1]]), self._limit)
        ids = torch.as_tensor(corpus.ids, device=self._device)
        return [self._batch(ids, *each) for each in cut(starts, lengths, tokens=self._tokens)]

    def _batch(self, ids: torch.Tensor, starts: Any, lengths: Any) -> Batch:
        return assemble(ids, starts, lengths, multiple=self._multiple, **self._special)


def _special(tokenizer: Any) -> tuple[int, int]:
    """The tokens that the tokenizer puts before and behind a text."""
    plain = tokenizer("word", add_special_tokens=False).input_ids
    whole = tokenizer("word").input_ids
    if len(whole) != len(plain) + 2 or list(whole[1:-1]) != list(plain):
        raise UnsupportedModel(
            f"distill: the tokenizer makes {list(whole)} of {list(plain)}; supported is one token before a text and "
            "one behind it."
        )
    return int(whole[0]), int(whole[-1])


def input_norms(loaded: LoadedModel, names: Sequence[str], batches: Sequence[Batch]) -> dict[str, torch.Tensor]:
    """Root mean square of each input feature (in,) of some linear layers, by name, over real tokens."""
    import torch

    sums: dict[str, torch.Tensor] = {}
    modules = dict(loaded.model.named_modules())
    now: list[torch.Tensor] = []
    hooks = []
    for name in names:

        def note(_module: Any, args: tuple[Any, ...], name: str = name) -> None:
            x = args[0].detach()
            real = now[0] if x.shape[:2] == now[0].shape else torch.ones(x.shape[:-1], device=x.device)
            squares = (x.float().square() * real[..., None]).flatten(0, -2).sum(0)
            sums[name] = sums[name] + squares if name in sums else squares

        hooks.append(modules[name].register_forward_pre_hook(note))
    try:
        with torch.no_grad():
            for ids, real in batches:
                now[:] = [real.float()]
                base_of(loaded.model)(input_ids=ids, attention_mask=real.long())
    finally:
        for hook in hooks:
            hook.remove()
    count = sum(int(real.sum()) for _, real in batches)
    return {name: (total / max(count, 1)).sqrt() for name, total in sums.items()}
