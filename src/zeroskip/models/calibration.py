"""Turn what the caller gives as calibration into batches of token ids."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .._errors import InvalidArgument
from ..datasets import calibration_source, calibration_texts

if TYPE_CHECKING:
    import torch

Batch = dict[str, "torch.Tensor"]
DEFAULT_SOURCE = "pydoc"
_BATCH_TOKENS = {"encoder": 512, "decoder": 2048}  # about; small where a refit takes a step a batch
_SENTENCES = 5  # at most, for each paragraph that stays whole
_MIN_WORDS = 4
_NO_TOKENIZER = "prune: calibration is text but there is no tokenizer; pass models.load(...), or tokenizer=."


@dataclass(frozen=True)
class Calibration:
    """Calibration data, ready to run.

    Args:
        batches: Arguments of a forward pass each, by name; of a plain torch model, one tensor called `input_ids`.
        source: How to call it in the report.
        samples: Number of sequences.
        tokens: Number of tokens that are no padding; 0 where inputs are no tokens.
    """

    batches: list[Batch]
    source: str
    samples: int
    tokens: int


def prepare(
    calibration: Any,
    *,
    tokenizer: Any,
    kind: str,
    samples: int | None,
    seq_len: int | None,
    max_length: int,
    seed: int,
) -> Calibration:
    """Batches from a name, a path, texts, or tensors of token ids.

    Args:
        calibration: None (the default text), a name or path, a list of texts, or a list of id tensors (T,) or (B, T).
        tokenizer: For texts; a Hugging Face tokenizer.
        kind: `encoder`: paragraphs and sentences, sorted by length; `decoder`: windows of one long text.
        samples, seq_len: How many sequences and how long; None: 256 x 128 for an encoder, 32 x 512 for a decoder.
        max_length: What the model takes at most.
        seed: Draws the samples.
    Raises:
        InvalidArgument: If there is nothing in it, or too little text.
    """
    decoder = kind == "decoder"
    samples = samples or (32 if decoder else 256)
    seq_len = min(seq_len or (512 if decoder else 128), max_length)
    if calibration is not None and not isinstance(calibration, (str, Path)):
        items = list(calibration)
        if not items:
            raise InvalidArgument("prune: calibration is empty; pass some texts, a name or a file.")
        if not all(isinstance(item, str) for item in items):
            return _from_tensors(items)
        lines, text, source = items, "\n\n".join(items), f"{len(items)} texts of the caller"
    else:
        name = DEFAULT_SOURCE if calibration is None else calibration
        text, source = calibration_source(name)
        lines = [] if decoder else calibration_texts(name)
        if calibration is None:
            source += ", the default as no text was given"
    if tokenizer is None:
        raise InvalidArgument(_NO_TOKENIZER)
    rng = random.Random(seed)
    if decoder:
        return _windows(text, source, tokenizer, samples=samples, seq_len=seq_len, rng=rng)
    return _lines(lines, source, tokenizer, samples=samples, seq_len=seq_len, rng=rng)


def _windows(text: str, source: str, tokenizer: Any, *, samples: int, seq_len: int, rng: random.Random) -> Calibration:
    """Windows of `seq_len` tokens at random places of the whole text, tokenised in one call."""
    import torch

    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt", verbose=False).input_ids[0]
    if len(ids) < seq_len + 2:
        raise InvalidArgument(
            f"prune: calibration has {len(ids)} tokens, fewer than one sequence of {seq_len}; pass more text or a "
            "smaller seq_len."
        )
    starts = [rng.randint(0, len(ids) - seq_len - 1) for _ in range(samples)]
    rows = torch.stack([ids[start : start + seq_len] for start in starts])
    per_batch = max(1, _BATCH_TOKENS["decoder"] // seq_len)
    return Calibration(
        [{"input_ids": rows[i : i + per_batch]} for i in range(0, samples, per_batch)], source, samples, rows.numel()
    )


def sentences(lines: Sequence[str]) -> list[str]:
    """The single sentences of paragraphs, those of at least four words; a line that has none stays as it is."""
    found = []
    for line in lines:
        parts = [part.strip(" .") for part in line.replace("? ", ". ").replace(" .", ".").split(". ")]
        found += [f"{part}." for part in parts if len(part.split()) >= _MIN_WORDS] or [line]
    return found


def _lines(
    lines: list[str], source: str, tokenizer: Any, *, samples: int, seq_len: int, rng: random.Random
) -> Calibration:
    """Half of the paragraphs whole, the others as single sentences: an encoder meets both, and they look different to
    it.

    Measured on MiniLM at 60 %: with whole paragraphs alone short sentences end 0.01 lower in cosine.
    """
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise InvalidArgument("prune: calibration holds no text; pass some sentences.")
    chosen = lines if len(lines) <= samples else rng.sample(lines, samples)
    half = -(-len(chosen) // 2)
    short = sentences(chosen[half:])
    chosen = chosen[:half] + rng.sample(short, min(len(short), _SENTENCES * half))
    rows = [tokenizer(line, truncation=True, max_length=seq_len).input_ids for line in chosen]
    return _batched(rows, source, tokenizer)


def _batched(rows: list[list[int]], source: str, tokenizer: Any) -> Calibration:
    """Rows of ids, longest first, in padded batches of about as many tokens each."""
    import torch

    rows = sorted((row for row in rows if row), key=len, reverse=True)
    pad = tokenizer.pad_token_id if getattr(tokenizer, "pad_token_id", None) is not None else 0
    batches: list[Batch] = []
    at = 0
    while at < len(rows):
        width = len(rows[at])
        part = rows[at : at + max(1, _BATCH_TOKENS["encoder"] // width)]
        ids = torch.full((len(part), width), pad, dtype=torch.int64)
        mask = torch.zeros((len(part), width), dtype=torch.int64)
        for index, row in enumerate(part):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        batches.append({"input_ids": ids, "attention_mask": mask})
        at += len(part)
    return Calibration(batches, source, len(rows), sum(map(len, rows)))


def _from_tensors(items: Sequence[Any]) -> Calibration:
    """Tensors (token ids of a Hugging Face model, any input of another), or dicts of the arguments of a forward
    pass."""
    import torch

    batches: list[Batch] = []
    tokens = 0
    for index, item in enumerate(items):
        if isinstance(item, Mapping):
            batch = {str(key): torch.as_tensor(value) for key, value in item.items()}
        elif isinstance(item, (torch.Tensor, list, tuple)) or hasattr(item, "__array__"):
            batch = {"input_ids": torch.as_tensor(item)}
        else:
            raise InvalidArgument(
                f"prune: calibration[{index}] is {type(item).__name__}; pass texts, tensors or dicts of tensors."
            )
        for key, value in batch.items():
            if value.is_floating_point() and not bool(torch.isfinite(value).all()):
                raise InvalidArgument(
                    f"prune: calibration[{index}] ({key}) holds NaN or Inf; check the calibration data."
                )
            if not value.is_floating_point() and value.dim() == 1:
                batch[key] = value[None]
        batches.append(batch)
        mask = batch.get("attention_mask")
        tokens += int(mask.sum()) if mask is not None else batch.get("input_ids", torch.empty(0)).numel()
    return Calibration(
        batches, f"{len(items)} tensors of the caller", sum(len(next(iter(b.values()))) for b in batches), tokens
    )
