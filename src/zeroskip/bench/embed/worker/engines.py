"""One class an engine. Each gets texts and gives vectors; tokenising, padding and pooling are part of the work.

All but ours share `Padded`: the same fast tokenizer, batches padded to their longest text, pooling in NumPy.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .padding import Float32, Int64, by_length, padded, pool, unit

Spec = Mapping[str, Any]
Rows = Sequence[Sequence[int]]


class Engine:
    """What the process asks of an engine."""

    def encode(self, texts: Sequence[str]) -> Float32:
        """One vector a text, in one batch."""
        raise NotImplementedError

    def encode_sorted(self, texts: Sequence[str], batch: int) -> Float32:
        """One vector a text, in batches of texts of like length, in the order given."""
        raise NotImplementedError

    def encode_chunks(self, chunks: Sequence[Sequence[str]]) -> tuple[list[Float32], list[float]]:
        """Vectors of each chunk, and the seconds of each; no seconds where several chunks run at a time."""
        vectors, times = [], []
        for chunk in chunks:
            begin = time.perf_counter()
            vectors.append(self.encode(chunk))
            times.append(time.perf_counter() - begin)
        return vectors, times

    def ready(self, batch: int) -> None:
        """Make what batches of this size need, where that is not done on the way."""


class Zeroskip(Engine):
    """A compiled model. The environment says how many threads."""

    def __init__(self, spec: Spec) -> None:
        from zeroskip.runtime import load

        self._model = load(spec["folder"])

    def encode(self, texts: Sequence[str]) -> Float32:
        vectors: Float32 = self._model.embed(list(texts), batch_size=len(texts))
        return vectors

    def encode_sorted(self, texts: Sequence[str], batch: int) -> Float32:
        vectors: Float32 = self._model.embed(list(texts), batch_size=batch)
        return vectors


class Padded(Engine):
    """An engine that takes rectangles of token ids.

    Args:
        spec: `tokenizer` (a file), `max_tokens`, `pad_id`, `pooling`, `normalize`, and what the engine needs.
    """

    def __init__(self, spec: Spec) -> None:
        from tokenizers import Tokenizer

        self.spec = spec
        self._tokenizer: Any = Tokenizer.from_file(spec["tokenizer"])
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(int(spec["max_tokens"]))

    def rows(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text."""
        batch = getattr(self._tokenizer, "encode_batch_fast", self._tokenizer.encode_batch)
        return [item.ids for item in batch(list(texts))]

    def forward(self, ids: Int64, mask: Int64) -> Float32:
        """Token vectors (texts, tokens, features)."""
        raise NotImplementedError

    def vectors(self, rows: Rows) -> Float32:
        """Vectors of one batch of token sequences."""
        ids, mask = padded(rows, int(self.spec["pad_id"]))
        return self.finished(self.forward(ids, mask), mask)

    def batches(self, found: Sequence[Rows]) -> list[Float32]:
        """Vectors of several batches."""
        return [self.vectors(rows) for rows in found]

    def finished(self, hidden: Float32, mask: Int64) -> Float32:
        """Pooled, and scaled where the model says so."""
        pooled = pool(hidden, mask, str(self.spec["pooling"]))
        return unit(pooled) if self.spec["normalize"] else pooled

    def encode(self, texts: Sequence[str]) -> Float32:
        return self.vectors(self.rows(texts))

    def encode_sorted(self, texts: Sequence[str], batch: int) -> Float32:
        rows = self.rows(texts)
        places = by_length(rows, batch)
        found = self.batches([[rows[place] for place in part] for part in places])
        vectors = np.empty((len(rows), found[0].shape[1]), dtype=np.float32)
        for part, some in zip(places, found, strict=True):
            vectors[part] = some
        return vectors


class Torch(Padded):
    """The Hugging Face model as it is."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        import torch
        from transformers import AutoModel

        torch.set_num_threads(int(spec["threads"]))
        self._torch = torch
        self._model = AutoModel.from_pretrained(spec["folder"], dtype=torch.float32).eval()

    def forward(self, ids: Int64, mask: Int64) -> Float32:
        torch = self._torch
        with torch.inference_mode():
            hidden: Float32 = self._model(torch.from_numpy(ids), torch.from_numpy(mask))[0].numpy()
        return hidden


class OnnxRuntime(Padded):
    """An ONNX file with all graph optimisations of the session."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(spec["threads"])
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._session: Any = onnxruntime.InferenceSession(spec["file"], options, providers=["CPUExecutionProvider"])

    def forward(self, ids: Int64, mask: Int64) -> Float32:
        hidden: Float32 = self._session.run(None, {"input_ids": ids, "attention_mask": mask})[0]
        return hidden


class OpenVino(Padded):
    """An OpenVINO model; with the hint `THROUGHPUT` several batches run at a time, as its documentation wants."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        import openvino

        settings = {"PERFORMANCE_HINT": spec["hint"], "INFERENCE_NUM_THREADS": int(spec["threads"])}
        if spec.get("precision"):
            settings["INFERENCE_PRECISION_HINT"] = spec["precision"]
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(spec["file"]), "CPU", settings)
        self._request: Any = compiled.create_infer_request()
        self._queue: Any = openvino.AsyncInferQueue(compiled) if spec["hint"] == "THROUGHPUT" else None

    def forward(self, ids: Int64, mask: Int64) -> Float32:
        found = self._request.infer({"input_ids": ids, "attention_mask": mask}, share_inputs=True, share_outputs=True)
        hidden: Float32 = found[0]
        return hidden

    def batches(self, found: Sequence[Rows]) -> list[Float32]:
        if self._queue is None:
            return super().batches(found)
        done: dict[int, Float32] = {}

        def keep(request: Any, data: tuple[int, Int64]) -> None:
            done[data[0]] = self.finished(request.get_output_tensor(0).data, data[1])

        self._queue.set_callback(keep)
        for place, rows in enumerate(found):
            ids, mask = padded(rows, int(self.spec["pad_id"]))
            self._queue.start_async({"input_ids": ids, "attention_mask": mask}, (place, mask))
        self._queue.wait_all()
        return [done[place] for place in range(len(found))]

    def encode_chunks(self, chunks: Sequence[Sequence[str]]) -> tuple[list[Float32], list[float]]:
        if self._queue is None or max(map(len, chunks)) == 1:  # one text at a time is answered before the next comes
            return super().encode_chunks(chunks)
        return self.batches([self.rows(chunk) for chunk in chunks]), []


class DeepSparse(Padded):
    """DeepSparse compiles fixed shapes only: an engine for each of some lengths, as its own pipelines have buckets."""

    BUCKETS = (16, 32, 64, 128, 256, 512)

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        limit = int(spec["max_tokens"])
        self._lengths = [length for length in self.BUCKETS if length < limit] + [limit]
        self._batch = 0
        self._engines: dict[int, Any] = {}
        self._used: dict[int, set[int]] = {}
        self._work = tempfile.TemporaryDirectory()

    def ready(self, batch: int) -> None:
        self._keep(batch)
        for length in sorted(self._used.get(batch, ())):
            self._engine(batch, length)

    def vectors(self, rows: Rows) -> Float32:
        batch = self._batch if 0 < len(rows) <= self._batch else len(rows)
        length = next(length for length in self._lengths if length >= max(map(len, rows)))
        ids, mask = padded(rows, int(self.spec["pad_id"]), length=length, count=batch)
        hidden = self._engine(batch, length).run([ids, mask], val_inp=False)[0]
        return self.finished(hidden, mask)[: len(rows)]

    def _engine(self, batch: int, length: int) -> Any:
        from deepsparse import Engine as Compiled

        self._keep(batch)
        self._used.setdefault(batch, set()).add(length)
        if length not in self._engines:
            # DeepSparse 1.8 writes the shapes that it is given into the file: each engine gets a copy.
            copied = shutil.copy(self.spec["file"], self._work.name)
            self._engines[length] = Compiled(
                copied,
                batch_size=batch,
                num_cores=int(self.spec["threads"]),
                input_shapes=[[batch, length], [batch, length]],
            )
        return self._engines[length]

    def _keep(self, batch: int) -> None:
        """Engines of another batch size go: each holds the weights again."""
        if batch != self._batch:
            self._engines, self._batch = {}, batch


ENGINES: Mapping[str, type[Any]] = {
    "zeroskip": Zeroskip,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "deepsparse": DeepSparse,
}
