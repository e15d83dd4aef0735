"""Padded batches of token ids to packed sequences and back, for NumPy and torch alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DtypeError, InvalidArgument, ShapeError
from ..formats import is_torch
from .text import Ids

Float32 = npt.NDArray[np.float32]


def integers(name: str, value: Any) -> npt.NDArray[np.int64]:
    """A batch (B, T) of whole numbers; one sequence (T,) becomes a batch of one."""
    if is_torch(value):
        array = value.detach().cpu().numpy()
    else:
        try:
            array = np.asarray(value)
        except ValueError:
            array = np.asarray(None)
    if array.dtype.kind not in "iub":
        raise DtypeError(f"model: {name} has dtype {array.dtype}, it must be whole numbers; pass token ids.")
    if array.ndim == 1:
        array = array[None, :]
    if array.ndim != 2 or array.shape[1] == 0:
        raise ShapeError(f"model: {name} has shape {array.shape}, it must be (batch, tokens); reshape it.")
    found: npt.NDArray[np.int64] = array.astype(np.int64, copy=False)
    return found


class Batch:
    """A padded batch, taken apart into the sequences that its mask shows.

    Args:
        input_ids: (B, T), NumPy, torch or nested lists.
        attention_mask: (B, T); ones of a row lie together. None for all ones.
        vocabulary: Ids must be below it.
    """

    def __init__(self, input_ids: Any, attention_mask: Any, vocabulary: int) -> None:
        self.ids = integers("input_ids", input_ids)
        self._template = input_ids
        if self.ids.size and (int(self.ids.min()) < 0 or int(self.ids.max()) >= vocabulary):
            bad = int(self.ids.min()) if int(self.ids.min()) < 0 else int(self.ids.max())
            raise InvalidArgument(
                f"model: input_ids holds {bad}, ids lie in [0, {vocabulary}); tokenise with the model's own tokenizer."
            )
        self.starts, self.ends = self._spans(attention_mask)

    def _spans(self, attention_mask: Any) -> tuple[list[int], list[int]]:
        count, width = self.ids.shape
        if attention_mask is None:
            return [0] * count, [width] * count
        mask = integers("attention_mask", attention_mask) != 0
        if mask.shape != self.ids.shape:
            raise ShapeError(
                f"model: attention_mask has shape {mask.shape} but input_ids has {self.ids.shape}; pass equal shapes."
            )
        lengths = mask.sum(axis=1)
        starts = mask.argmax(axis=1)
        for row in range(count):
            if not lengths[row] or not mask[row, starts[row] : starts[row] + lengths[row]].all():
                what = "has no ones" if not lengths[row] else "has zeros between ones"
                raise InvalidArgument(
                    f"model: attention_mask[{row}] {what}; mask the padding before or after a sequence only."
                )
        return starts.tolist(), (starts + lengths).tolist()

    def sequences(self) -> list[Ids]:
        """The ids of each sequence, without padding."""
        rows = zip(self.ids, self.starts, self.ends, strict=True)
        return [row[start:end].astype(np.int32) for row, start, end in rows]

    def select(self, values: npt.NDArray[np.int64]) -> list[Ids]:
        """Another array of the batch's shape, cut the same way."""
        if values.shape != self.ids.shape:
            raise ShapeError(
                f"model: token_type_ids has shape {values.shape} but input_ids has {self.ids.shape}; pass equal shapes."
            )
        rows = zip(values, self.starts, self.ends, strict=True)
        return [row[start:end].astype(np.int32) for row, start, end in rows]

    def pad(self, tokens: Float32) -> Any:
        """Token vectors (tokens, features) back to (B, T, features), zeros where padding was, of the caller's kind."""
        padded = np.zeros((*self.ids.shape, tokens.shape[1]), dtype=np.float32)
        at = 0
        for row, (start, end) in enumerate(zip(self.starts, self.ends, strict=True)):
            padded[row, start:end] = tokens[at : at + end - start]
            at += end - start
        return as_kind(padded, self._template)


def as_kind(array: Float32, template: Any) -> Any:
    """A float32 array as torch where the caller's input was torch."""
    if not is_torch(template):
        return array
    import torch

    return torch.from_numpy(array)


class Output:
    """What a model returns: `last_hidden_state` or `logits`, by attribute, by name or by position.

    Args:
        fields: Arrays by name, in order.
    """

    def __init__(self, **fields: Any) -> None:
        self._fields = fields
        self.__dict__.update(fields)

    def __getitem__(self, key: int | str) -> Any:
        return self._fields[key] if isinstance(key, str) else list(self._fields.values())[key]

    def __len__(self) -> int:
        return len(self._fields)

    def keys(self) -> Sequence[str]:
        return list(self._fields)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"this output has {', '.join(self._fields)}, not {name!r}")

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}={tuple(value.shape)}" for name, value in self._fields.items())
        return f"Output({shapes})"
