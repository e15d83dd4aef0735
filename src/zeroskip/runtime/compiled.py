"""The compiled model: a graph, its packed weights, and what a user calls."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .. import io
from .._errors import FormatError, InvalidArgument
from ..formats import is_torch
from ..io import Manifest, Matrix
from . import layerplan
from .batch import Batch, Output, as_kind, integers
from .embed import Progress, embed_ids
from .generate import Generation, Stream
from .layerplan import LayerPlan, Memory
from .packing import packed_bytes, threaded
from .sampling import Sampling
from .text import Ids, Text

if TYPE_CHECKING:
    from ..kernels.cpu import NativePrepared
    from .floor.report import FloorReport
    from .graph import Graph
    from .program import Program

Float32 = npt.NDArray[np.float32]


class CompiledModel:
    """A model compiled for this processor; made by `zeroskip.compile` and `zeroskip.load`.

    Attributes:
        kind: `encoder` or `decoder`.
        family: The family it was lowered from.
        name: How it calls itself in reports.
        values: Value type of the packed weights.
        plan: One `LayerPlan` a linear layer.
        machine: Where the plan was measured.
        notes: What a user should know: kernels replaced on loading, a plan from another machine.
        floor: What a search above a quality floor found; None without one.
    """

    def __init__(
        self,
        *,
        kind: str,
        family: str,
        name: str,
        values: str,
        graph: Graph,
        tensors: Mapping[str, Any],
        ranges: Mapping[str, Sequence[tuple[int | None, NativePrepared]]],
        matrix_of: Callable[[str], Matrix],
        plan: Sequence[LayerPlan],
        text: Text,
        machine: Mapping[str, Any],
        notes: Sequence[str] = (),
        floor: FloorReport | None = None,
    ) -> None:
        from .program import Program

        needed = {"hidden", "embedding"} if kind == "encoder" else {"hidden"}
        if missing := sorted(needed - set(graph.outputs)):
            raise FormatError(
                f"compile: the graph has no output {missing[0]!r}, which every {kind} has; save it again."
            )
        self.kind = kind
        self.family = family
        self.name = name
        self.values = values
        self.plan = tuple(plan)
        self.machine = dict(machine)
        self.notes = tuple(notes)
        self.floor = floor
        self._graph = graph
        self._tensors = dict(tensors)
        self._ranges = {name: tuple(item) for name, item in ranges.items()}
        self._matrix_of = matrix_of
        self._text = text
        packed = {name: tuple((limit, item.packed) for limit, item in items) for name, items in self._ranges.items()}
        self._program: Program = Program(graph, self._tensors, linears=packed)

    def __call__(self, input_ids: Any, attention_mask: Any = None, token_type_ids: Any = None, **unused: Any) -> Output:
        """Run a batch, like the model it came from.

        Args:
            input_ids: (B, T) token ids, NumPy or torch.
            attention_mask: (B, T), 0 where padding is; padding costs nothing here.
            token_type_ids: (B, T), of encoders that have them.
        Returns:
            `last_hidden_state` (B, T, features) of an encoder or `logits` (B, T, vocabulary) of a decoder, NumPy or
            torch like the input; zeros where padding is.
        """
        if given := [name for name, value in unused.items() if value is not None and not isinstance(value, bool)]:
            raise InvalidArgument(
                f"model: {given[0]} is no argument of a compiled model; leave it out, or use generate()."
            )
        batch = Batch(input_ids, attention_mask, self.vocabulary)
        types = None
        if token_type_ids is not None and "types" in self._graph.inputs:
            types = batch.select(integers("token_type_ids", token_type_ids))
        if "logits" in self._graph.outputs:
            return Output(logits=batch.pad(self.logits(batch.sequences())))
        return Output(last_hidden_state=batch.pad(self.hidden(batch.sequences(), types)))

    def embed(
        self,
        texts: Sequence[str] | str,
        *,
        batch_size: int | None = None,
        normalize: bool | None = None,
        progress: Progress | None = None,
    ) -> Float32:
        """One vector a text.

        Args:
            texts: Strings; longer ones than the model takes are cut.
            batch_size: Most texts in one run; None for as many as fill the threads.
            normalize: Whether vectors have length 1; None as the model was made.
            progress: Called with ("embed", done, total).
        Returns:
            (texts, features), or (features,) for a single string.
        """
        self._need("encoder", "embed")
        listed = [texts] if isinstance(texts, str) else list(texts)
        settings = self._text.settings
        vectors = embed_ids(
            self.vectors,
            self._text.encode(listed),
            features=self.features,
            normalize=settings.normalize if normalize is None else normalize,
            batch_size=batch_size,
            progress=progress,
        )
        return vectors[0] if isinstance(texts, str) else vectors

    def generate(
        self,
        prompt: str | Sequence[int] | Any,
        *,
        max_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: Sequence[str] | str = (),
        stream: Stream | None = None,
        chat: bool = False,
    ) -> Generation:
        """Continue a prompt.

        Args:
            prompt: A text, token ids, or with `chat` a list of messages (dicts of `role` and `content`).
            max_tokens: Most tokens to generate.
            temperature: 0 takes the likeliest token each time.
            top_k: Draw among so many of the likeliest tokens only.
            top_p: Draw among the likeliest tokens that together have this probability only.
            seed: Makes draws repeatable.
            stop: Texts that end the generation.
            stream: Called with each piece of text as it comes.
            chat: Whether to put the prompt into the model's chat template.
        """
        self._need("decoder", "generate")
        if max_tokens < 1:
            raise InvalidArgument(f"generate: max_tokens is {max_tokens}, it must be at least 1; leave it out for 64.")
        from .generate import generate

        return generate(
            self,
            self._text,
            self._prompt_ids(prompt, chat),
            max_tokens=max_tokens,
            sampling=Sampling(temperature, top_k, top_p, seed),
            stop=[stop] if isinstance(stop, str) else stop,
            stream=stream,
            context=self._text.settings.max_length,
        )

    def hidden(self, ids: Sequence[Ids], types: Sequence[Ids] | None = None) -> Float32:
        """The last hidden state (tokens, features) of some sequences, one behind the other."""
        return self._program.run(ids, types=types, outputs=["hidden"])["hidden"]

    def vectors(self, ids: Sequence[Ids]) -> Float32:
        """The pooled vector of each sequence, not normalised."""
        return self._program.run(ids, outputs=["embedding"])["embedding"]

    def logits(self, ids: Sequence[Ids]) -> Float32:
        """Logits (tokens, vocabulary) of some sequences, one behind the other."""
        return self._program.run(ids, outputs=["logits"])["logits"]

    def new_cache(self, max_tokens: int) -> Any:
        """Room for the keys and values of one sequence."""
        return self._program.new_cache(max_tokens)

    def next_logits(self, ids: Ids, cache: Any) -> Float32:
        """Append tokens to a cache; logits (vocabulary,) of what follows the last one."""
        found: Float32 = self.next_logits_of([ids], [cache])[0]
        return found

    def next_logits_of(self, ids: Sequence[Ids], caches: Sequence[Any]) -> Float32:
        """Append tokens of several sequences, each to its own cache, in one run.

        Args:
            ids: Tokens (T,) of each; lengths may differ.
            caches: What `new_cache` gave for each.
        Returns:
            Logits (sequences, vocabulary) of what follows the last token of each.
        """
        return self._program.run(ids, cache=list(caches), outputs=["last_logits"])["last_logits"]

    @property
    def features(self) -> int:
        """Width of the hidden state."""
        return self._graph.features("hidden")

    @property
    def max_positions(self) -> int | None:
        """Most tokens of a sequence; None for no limit."""
        return self._graph.max_positions or None

    @property
    def vocabulary(self) -> int:
        """Token ids are below it."""
        tables = [step["table"] for step in self._graph.steps if step["op"] == "embed" and step["input"] == "ids"]
        return min((int(self._tensors[name].shape[0]) for name in tables), default=0)

    def report(self, *, json: bool = False) -> Any:
        """The plan: for each layer its shape, sparsity, kernels, their time against dense, and why.

        Returns:
            A table for people, or with `json` a list of rows.
        """
        if json:
            return [layer.as_json() for layer in self.plan]
        title = f"{self.name} ({self.kind}, {self.family}), {self.values} values"
        text = layerplan.report_text(title, self.plan, self.memory, self.machine, self.notes)
        return text if self.floor is None else f"{text}\n\n{self.floor}"

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the model, whole or not at all; `zeroskip.load` reads it.

        Args:
            folder: A new or empty folder; or a saved model if `overwrite`.
            overwrite: Whether to replace a saved model.
        """
        names = [layer.name for layer in self.plan]
        matrices = dict(zip(names, threaded(self._matrix_of, names), strict=True))
        manifest = Manifest(
            kind=self.kind,
            family=self.family,
            name=self.name,
            values=self.values,
            graph=self._graph.to_json(),
            linears={},
            plan=[layer.as_json() for layer in self.plan],
            machine=self.machine,
            text=self._text.settings.as_json(),
            floor=None if self.floor is None else self.floor.as_json(),
        )
        return io.save(
            folder, manifest, matrices=matrices, tensors=self._tensors, files=self._text.files, overwrite=overwrite
        )

    @property
    def memory(self) -> Memory:
        """Bytes of the weights: sparse, dense, and everything else."""
        sparse: dict[str, list[tuple[int | None, NativePrepared]]] = {}
        dense: dict[str, list[tuple[int | None, NativePrepared]]] = {}
        for name, items in self._ranges.items():
            for item in items:
                kind = dense if item[1].kernel.startswith("spmm_dense_") else sparse
                kind.setdefault(name, []).append(item)
        tables = sum(int(array.nbytes) for array in self._tensors.values())
        return Memory(packed_bytes(sparse), packed_bytes(dense), tables)

    @property
    def nbytes(self) -> int:
        """Bytes of all weights; `memory` has them apart."""
        return self.memory.total

    @property
    def text(self) -> Text:
        """Tokenizer and text settings."""
        return self._text

    def _need(self, kind: str, call: str) -> None:
        needs = "embedding" if kind == "encoder" else "last_logits"
        if needs not in self._graph.outputs:
            other = "generate() continues text" if self.kind == "decoder" else "embed() makes vectors"
            raise InvalidArgument(
                f"{call}: this model is no {kind} but of kind {self.kind}, which {call} does not take; {other} here."
            )

    def _prompt_ids(self, prompt: Any, chat: bool) -> Ids:
        if chat:
            return self._text.chat([{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt)
        if isinstance(prompt, str):
            ids = self._text.encode([prompt], cut=False)[0]
        else:
            found = integers("prompt", prompt.reshape(-1) if hasattr(prompt, "reshape") else prompt)
            ids = Batch(found, None, self.vocabulary).sequences()[0]
        if not ids.size:
            raise InvalidArgument("generate: the prompt is empty; pass at least one token.")
        return ids

    def __repr__(self) -> str:
        return f"CompiledModel({self.name}, {self.kind}, {len(self.plan)} linear layers, {self.nbytes / 1e6:.1f} MB)"


__all__ = ["CompiledModel", "Memory", "as_kind", "is_torch"]
