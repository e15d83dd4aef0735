"""Engines: a prompt in, the likeliest next tokens out, then one token a sequence at a time.

Sequences of a batch are of one length. Every engine holds its cache itself; `room` tokens of a sequence fit.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Spec = Mapping[str, Any]


def likeliest(logits: Float32) -> Ids:
    """The token with the largest logit of each row."""
    found: Ids = logits.argmax(axis=1).astype(np.int32)
    return found


class Engine:
    """One model in one engine.

    Args:
        spec: `room` (tokens a sequence at most), `sequences` (at most), `threads`, and what the engine needs.
    """

    package: ClassVar[str]

    def __init__(self, spec: Spec) -> None:
        raise NotImplementedError

    def logits(self, ids: npt.NDArray[Any]) -> Float32:
        """Logits (tokens, vocabulary) of one sequence."""
        raise NotImplementedError

    def forget(self) -> None:
        """Give back what only `logits` needs."""

    def prefill(self, ids: Ids) -> Ids:
        """Run prompts (sequences, tokens) from empty caches; the likeliest next token of each."""
        raise NotImplementedError

    def step(self, tokens: Ids) -> Ids:
        """Run a token of each sequence behind its cache; the likeliest next ones."""
        raise NotImplementedError


class Zeroskip(Engine):
    """A compiled model. The environment says how many threads."""

    package = "zeroskip"

    def __init__(self, spec: Spec) -> None:
        from zeroskip.runtime import load

        self._model = load(spec["folder"])
        self._room = int(spec["room"])
        self._caches: list[Any] = []

    def logits(self, ids: npt.NDArray[Any]) -> Float32:
        found: Float32 = self._model.logits([ids.astype(np.int32)])
        return found

    def prefill(self, ids: Ids) -> Ids:
        self._caches = [self._model.new_cache(self._room) for _ in ids]
        return self._run(list(ids))

    def step(self, tokens: Ids) -> Ids:
        return self._run(list(tokens[:, None]))

    def _run(self, ids: list[Ids]) -> Ids:
        return likeliest(self._model.next_logits_of(ids, self._caches))


class Torch(Engine):
    """Hugging Face's model in a bare loop, without the bookkeeping of `generate`."""

    package = "torch"

    def __init__(self, spec: Spec) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(int(spec["threads"]))
        self._torch = torch
        model: Any = AutoModelForCausalLM.from_pretrained(spec["folder"], dtype=getattr(torch, spec["dtype"]))
        self._model: Any = model.eval()
        self._cache: Any = None

    def logits(self, ids: npt.NDArray[Any]) -> Float32:
        torch = self._torch
        with torch.inference_mode():
            found: Float32 = self._model(torch.from_numpy(ids.astype(np.int64))[None]).logits[0].float().numpy()
        return found

    def prefill(self, ids: Ids) -> Ids:
        self._cache = None
        return self._run(ids)

    def step(self, tokens: Ids) -> Ids:
        return self._run(tokens[:, None])

    def _run(self, ids: Ids) -> Ids:
        torch = self._torch
        with torch.inference_mode():
            made = self._model(
                torch.from_numpy(ids.astype(np.int64)), past_key_values=self._cache, use_cache=True, logits_to_keep=1
            )
            self._cache = made.past_key_values
            return likeliest(made.logits[:, -1].float().numpy())


class OnnxRuntime(Engine):
    """A graph of ONNX Runtime's own model builder; keys and values stay in place, as in its own loop.

    Args:
        spec: Also `heads` and `width` of keys; `file` gives the last logits, `whole` all of them.
    """

    package = "onnxruntime"

    def __init__(self, spec: Spec) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(spec["threads"])
        options.log_severity_level = 3
        self._session: Any = onnxruntime.InferenceSession(spec["file"], options, providers=["CPUExecutionProvider"])
        self._options, self._runtime = options, onnxruntime
        self._whole_file: str = spec["whole"]
        self._whole: Any = None
        self._room = int(spec["room"])
        names = {item.name: item for item in self._session.get_inputs()}
        self._past = [name for name in names if name.startswith("past_key_values.")]
        self._heads, self._width = int(spec["heads"]), int(spec["width"])
        self._positions = "position_ids" in names
        self._binding: Any = None
        self._length = 0

    def logits(self, ids: npt.NDArray[Any]) -> Float32:
        if self._whole is None:
            make = self._runtime.InferenceSession
            self._whole = make(self._whole_file, self._options, providers=["CPUExecutionProvider"])
        empty = np.zeros((1, self._heads, 0, self._width), dtype=np.float32)
        feed = {"input_ids": ids.astype(np.int64)[None], "attention_mask": np.ones((1, ids.size), dtype=np.int64)}
        if self._positions:
            feed["position_ids"] = np.arange(ids.size, dtype=np.int64)[None]
        found: Float32 = self._whole.run(["logits"], {**feed, **dict.fromkeys(self._past, empty)})[0][0]
        return found

    def forget(self) -> None:
        self._whole = None

    def prefill(self, ids: Ids) -> Ids:
        binding = self._session.io_binding()
        for name in self._past:
            shape = (len(ids), self._heads, self._room, self._width)
            value = self._runtime.OrtValue.ortvalue_from_numpy(np.zeros(shape, dtype=np.float32))
            binding.bind_ortvalue_input(name, value)
            binding.bind_ortvalue_output(name.replace("past_key_values", "present"), value)
        self._binding, self._length = binding, 0
        return self._run(ids)

    def step(self, tokens: Ids) -> Ids:
        return self._run(tokens[:, None])

    def _run(self, ids: Ids) -> Ids:
        binding, (count, length) = self._binding, ids.shape
        binding.bind_cpu_input("input_ids", ids.astype(np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((count, self._length + length), dtype=np.int64))
        if self._positions:
            places = np.arange(self._length, self._length + length, dtype=np.int64)
            binding.bind_cpu_input("position_ids", np.tile(places, (count, 1)))
        binding.bind_output("logits")
        self._session.run_with_iobinding(binding)
        self._length += length
        return likeliest(binding.get_outputs()[-1].numpy()[:, -1])  # outputs are in the order they were bound


class OpenVino(Engine):
    """A stateful OpenVINO model: keys and values stay in it."""

    package = "openvino"

    def __init__(self, spec: Spec) -> None:
        import openvino

        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": int(spec["threads"])}
        if spec.get("precision"):
            settings["INFERENCE_PRECISION_HINT"] = spec["precision"]
        settings["KV_CACHE_PRECISION"] = spec["cache"]
        core = openvino.Core()
        compiled = core.compile_model(core.read_model(spec["file"]), "CPU", settings)
        self._request: Any = compiled.create_infer_request()
        self._length = 0

    def logits(self, ids: npt.NDArray[Any]) -> Float32:
        self._reset()
        found: Float32 = self._infer(ids[None], np.arange(ids.size))[0].copy()
        return found

    def prefill(self, ids: Ids) -> Ids:
        self._reset()
        return self._run(ids)

    def step(self, tokens: Ids) -> Ids:
        return self._run(tokens[:, None])

    def _reset(self) -> None:
        self._request.reset_state()
        self._length = 0

    def _run(self, ids: Ids) -> Ids:
        return likeliest(self._infer(ids, np.array([ids.shape[1] - 1]))[:, -1])

    def _infer(self, ids: npt.NDArray[Any], take: npt.NDArray[Any]) -> Float32:
        count, length = ids.shape
        places = np.arange(self._length, self._length + length, dtype=np.int64)
        self._length += length
        feed = {
            "input_ids": ids.astype(np.int64),
            "attention_mask": np.ones((count, self._length), dtype=np.int64),
            "position_ids": np.tile(places, (count, 1)),
            "take": take.astype(np.int64),
            "beam_idx": np.arange(count, dtype=np.int32),
        }
        found: Float32 = self._request.infer(feed, share_inputs=True, share_outputs=True)["logits"]
        return found


class LlamaCpp(Engine):
    """llama.cpp through its C interface, which takes a batch of several sequences."""

    package = "llama-cpp-python"

    def __init__(self, spec: Spec) -> None:
        import llama_cpp

        self._lib = llama_cpp
        # ggml's log callback must outlive the library: kept here.
        self._quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self._quiet, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_load_from_file(spec["file"].encode(), llama_cpp.llama_model_default_params())
        if not model:
            raise RuntimeError(f"llama.cpp cannot load {spec['file']}")
        self._model = model
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx = int(spec["room"]) * int(spec["sequences"])
        settings.n_batch = settings.n_ctx
        settings.n_seq_max = int(spec["sequences"])
        settings.n_threads = settings.n_threads_batch = int(spec["threads"])
        self._context = llama_cpp.llama_init_from_model(model, settings)
        if not self._context:
            raise RuntimeError(f"llama.cpp makes no context for {settings.n_ctx} tokens")
        self._length = 0

    def logits(self, ids: npt.NDArray[Any]) -> Float32:
        self._reset()
        return self._run(ids[None], every=True)

    def prefill(self, ids: Ids) -> Ids:
        self._reset()
        return likeliest(self._run(ids, every=False))

    def step(self, tokens: Ids) -> Ids:
        return likeliest(self._run(tokens[:, None], every=False))

    def _reset(self) -> None:
        self._lib.llama_memory_clear(self._lib.llama_get_memory(self._context), True)
        self._length = 0

    def _run(self, ids: npt.NDArray[Any], *, every: bool) -> Float32:
        lib, (count, length) = self._lib, ids.shape
        batch = lib.llama_batch_init(count * length, 0, 1)
        batch.n_tokens = count * length
        for place in range(count * length):
            sequence, at = divmod(place, length)
            batch.token[place] = int(ids[sequence, at])
            batch.pos[place] = self._length + at
            batch.n_seq_id[place] = 1
            batch.seq_id[place][0] = sequence
            batch.logits[place] = every or at == length - 1
        failed = lib.llama_decode(self._context, batch)
        lib.llama_batch_free(batch)
        if failed:
            raise RuntimeError(f"llama.cpp: llama_decode gives {failed} for {count} x {length} tokens")
        self._length += length
        rows = length if every else count
        held = np.ctypeslib.as_array(lib.llama_get_logits(self._context), shape=(rows, self._vocabulary))
        found: Float32 = held.copy()
        return found


ENGINES: Mapping[str, type[Engine]] = {
    "zeroskip": Zeroskip,
    "torch": Torch,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "llamacpp": LlamaCpp,
}
