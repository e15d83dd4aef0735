"""The dense model in other engines, run as well as they can: the same tokenizer, sorted by tokens, the same threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..models import LoadedModel
from .embed.worker.padding import by_length, padded, pool, unit
from .export import export, fuse

Float32 = npt.NDArray[np.float32]
BATCH = 32
_TRIAL = (8, 64)


@dataclass(frozen=True)
class TorchEncoder:
    """A dense encoder in torch: texts sorted by tokens, batches padded to their longest."""

    loaded: LoadedModel

    def embed(self, texts: Sequence[str]) -> Float32:
        """One vector a text, pooled and scaled as the model says."""
        import torch

        def forward(batch: dict[str, Any]) -> Float32:
            with torch.inference_mode():
                tensors = {name: torch.from_numpy(array) for name, array in batch.items()}
                hidden: Float32 = self.loaded.model(**tensors)[0].numpy()
                return hidden

        return _embed(self.loaded, texts, forward)


class OnnxEncoder:
    """The same encoder exported to ONNX and run by ONNX Runtime with all its graph optimisations.

    Args:
        loaded: The dense model.
        folder: Where the exported file goes.
        threads: Of the session.
        fuse: Also try the attention fusion of `onnxruntime.transformers`, and keep whichever is faster.
    """

    def __init__(self, loaded: LoadedModel, folder: Path, *, threads: int, fuse: bool) -> None:
        self._loaded = loaded
        plain = folder / "dense.onnx"
        export(loaded, plain)
        self._session = _session(plain, threads)
        self.how = "graph optimisations of the session"
        if fuse:
            self._try_fused(plain, folder / "dense-fused.onnx", threads)

    def embed(self, texts: Sequence[str]) -> Float32:
        """One vector a text, as `TorchEncoder.embed`."""
        return _embed(self._loaded, texts, self._forward)

    def _forward(self, batch: dict[str, Any]) -> Float32:
        hidden: Float32 = self._session.run(None, {name: batch[name] for name in ("input_ids", "attention_mask")})[0]
        return hidden

    def _try_fused(self, plain: Path, fused: Path, threads: int) -> None:
        """Attention fused by ONNX Runtime's own tool; it is slower on some processors, so a trial decides."""
        config = self._loaded.model.config
        try:
            fuse(plain, fused, config)
            session = _session(fused, threads)
        except Exception as error:  # the tool raises anything on a graph it does not know; the plain one stays
            self.how += f" (attention fusion failed: {type(error).__name__})"
            return
        if _trial_s(session) < _trial_s(self._session):
            self._session = session
            self.how = "graph optimisations of the session, and fused attention"


def _session(path: Path, threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _trial_s(session: Any) -> float:
    import time

    ids = np.ones(_TRIAL, dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": ids}
    session.run(None, feed)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        session.run(None, feed)
        times.append(time.perf_counter() - start)
    return sorted(times)[2]


def _embed(loaded: LoadedModel, texts: Sequence[str], forward: Any) -> Float32:
    """Tokenise, run and pool in batches of 32, longest first."""
    rows = loaded.tokenizer(list(texts), truncation=True, max_length=max_tokens(loaded))["input_ids"]
    vectors: Float32 | None = None
    for places in by_length(rows, BATCH):
        ids, mask = padded([rows[place] for place in places], loaded.tokenizer.pad_token_id or 0)
        hidden = forward({"input_ids": ids, "attention_mask": mask})
        pooled = pool(hidden, mask, loaded.extra.get("pooling", "mean"))
        if vectors is None:
            vectors = np.empty((len(texts), pooled.shape[1]), dtype=np.float32)
        vectors[places] = pooled
    assert vectors is not None
    return unit(vectors) if loaded.extra.get("normalize", False) else vectors


def max_tokens(loaded: LoadedModel) -> int:
    """Where texts are cut: what sentence-transformers says, else what the positions of the model allow."""
    stated = loaded.extra.get("max_seq_length")
    positions = int(getattr(loaded.model.config, "max_position_embeddings", 512))
    if loaded.family in ("roberta", "mpnet"):
        positions -= 2  # their positions begin behind the padding index
    return min(int(stated), positions) if stated else positions


class TorchDecoder:
    """A dense decoder in torch: Hugging Face's model in a bare greedy loop, without the bookkeeping of `generate`."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._model = loaded.model

    def logits(self, ids: npt.NDArray[np.integer[Any]]) -> Float32:
        """Logits (tokens, vocabulary) of one sequence."""
        import torch

        with torch.inference_mode():
            found: Float32 = self._model(input_ids=torch.from_numpy(ids.astype(np.int64))[None]).logits[0].numpy()
        return found

    def prefill(self, ids: npt.NDArray[np.integer[Any]]) -> tuple[int, Any]:
        """Run a prompt; the likeliest next token, and the cache. Only the last position goes through the head."""
        import torch

        with torch.inference_mode():
            made = self._model(input_ids=torch.from_numpy(ids.astype(np.int64))[None], use_cache=True, logits_to_keep=1)
        return int(made.logits[0, -1].argmax()), made.past_key_values

    def step(self, token: int, cache: Any) -> tuple[int, Any]:
        """Run one token behind what the cache holds."""
        import torch

        with torch.inference_mode():
            made = self._model(input_ids=torch.tensor([[token]]), past_key_values=cache, use_cache=True)
        return int(made.logits[0, -1].argmax()), made.past_key_values

    def generate(self, ids: npt.NDArray[np.integer[Any]], count: int, stop_ids: Sequence[int]) -> list[int]:
        """Greedy continuation."""
        token, cache = self.prefill(ids)
        drawn: list[int] = []
        while token not in stop_ids and len(drawn) < count:
            drawn.append(token)
            token, cache = self.step(token, cache)
        return drawn
