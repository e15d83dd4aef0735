"""Texts to vectors without padding: sorted by length, packed one behind the other, put back in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from .._errors import InvalidArgument
from ..kernels import num_threads
from .text import Ids

Float32 = npt.NDArray[np.float32]
Progress = Callable[[str, int, int], None]

# Most tokens of one run, a thread: each takes several parts of it through the model by itself (Program::parts), so that
# all finish together. Activations are those of the parts being run.
TOKENS_A_THREAD = 2048


def batches(lengths: Sequence[int], batch_size: int | None, budget: int) -> Iterator[list[int]]:
    """Indices of texts, longest first, in runs of at most `batch_size` texts (None: any) and `budget` tokens.

    A single text may be longer than the budget.
    """
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    batch: list[int] = []
    tokens = 0
    for index in order:
        if batch and (len(batch) == batch_size or tokens + lengths[index] > budget):
            yield batch
            batch, tokens = [], 0
        batch.append(index)
        tokens += lengths[index]
    if batch:
        yield batch


def embed_ids(
    run: Callable[[Sequence[Ids]], Float32],
    ids: Sequence[Ids],
    *,
    features: int,
    normalize: bool,
    batch_size: int | None,
    progress: Progress | None = None,
) -> Float32:
    """One vector a token sequence, in the order given.

    Args:
        run: Pooled vectors (sequences, features) of some sequences.
        ids: Token ids; none of them empty.
        features: Width of a vector.
        normalize: Whether to scale vectors to length 1.
        batch_size: Most sequences of one run; None for as many as fill the threads.
        progress: Called with ("embed", done, total).
    """
    if batch_size is not None and batch_size < 1:
        raise InvalidArgument(
            f"embed: batch_size is {batch_size}, it must be at least 1; leave it out for as many as fill the threads."
        )
    vectors = np.empty((len(ids), features), dtype=np.float32)
    done = 0
    for batch in batches([item.size for item in ids], batch_size, TOKENS_A_THREAD * num_threads()):
        vectors[batch] = run([ids[index] for index in batch])
        done += len(batch)
        if progress:
            progress("embed", done, len(ids))
    return unit(vectors) if normalize else vectors


def unit(vectors: Float32) -> Float32:
    """Vectors scaled to length 1; a zero vector stays zero."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: Float32 = np.divide(vectors, np.maximum(norms, np.float32(1e-12)), dtype=np.float32)
    return scaled
