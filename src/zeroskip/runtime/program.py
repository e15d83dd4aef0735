"""A graph bound to its tensors and packed weights: a whole forward pass in one native call."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import FormatError, InvalidArgument, ShapeError
from ..formats._dtypes import Array
from .graph import Graph, Step, buffers_of

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
Variants = Sequence[tuple[int | None, Any]]

_UNBOUNDED = (1 << 63) - 1
# Fields of a step that the native module takes as they are.
_PLAIN = {"op", "eps", "groups", "heads", "kv_heads", "head_dim", "scale", "causal", "cache", "activation"}
_PLAIN |= {"input", "offset", "add", "mode", "normalize"}


class Program:
    """A runnable graph.

    Calls from several threads take turns. Working memory is kept between runs, as much as the largest needed.

    Args:
        graph: What to compute.
        tensors: Dense arrays by name: float32; embedding tables also float16, or bfloat16 as uint16 bit patterns. They
            are not copied.
        linears: For each weight matrix its packed forms by ranges of lanes: (most lanes, `_native.Packed`), ascending,
            the last with None.
    Raises:
        FormatError: If a tensor or matrix is missing or does not fit the graph.
    """

    def __init__(self, graph: Graph, tensors: Mapping[str, Array], *, linears: Mapping[str, Variants]) -> None:
        self.graph = graph
        graph.check_tensors({name: tuple(array.shape) for name, array in tensors.items()})
        self._buffers = {name: index for index, name in enumerate(graph.buffers)}
        slices = {name: (index, 0, graph.buffers[name]) for name, index in self._buffers.items()}
        for name, (buffer, first, features) in graph.views.items():
            slices[name] = (self._buffers[buffer], first, features)
        self._slices = {name: index for index, name in enumerate(slices)}
        steps = [self._native_step(step, tensors, linears) for step in graph.steps]
        native = importlib.import_module("zeroskip._native")
        try:
            self._native = native.Program(
                list(graph.buffers.values()), list(slices.values()), steps, graph.max_positions
            )
        except ValueError as error:
            raise FormatError(f"{error}; save the model again.") from None

    def run(
        self,
        ids: Sequence[Int32],
        *,
        types: Sequence[Int32] | None = None,
        cache: Any = None,
        outputs: Sequence[str] | None = None,
        profile: dict[str, float] | None = None,
    ) -> dict[str, Float32]:
        """Run a batch of sequences.

        Args:
            ids: Token ids of each sequence; lengths may differ, none is empty.
            types: Token types, of the same lengths; None for zeros.
            cache: From `new_cache`, one for each sequence (or the one itself for a single sequence): the tokens are
                appended to it and see what it holds. It is unchanged if the run fails.
            outputs: Names of outputs; only what they need is computed. None for the first output.
            profile: Receives seconds by operation, added to what it holds.
        Returns:
            Each output as (tokens, features), tokens of all sequences one behind the other; or (sequences, features)
            of an output that holds one vector a sequence.
        Raises:
            InvalidArgument: If an id, a length or a cache does not fit; nothing has run then.
        """
        return self._run(ids, types, cache, outputs, profile, fill_nan=False)

    def new_cache(self, max_tokens: int) -> Any:
        """Room for the keys and values of one sequence; has `length`, `max_tokens`, `nbytes`, `truncate(length)`.

        Raises:
            InvalidArgument: If the model keeps none, or `max_tokens` is not positive.
        """
        try:
            return self._native.new_cache(max_tokens)
        except (ValueError, TypeError) as error:
            raise InvalidArgument(f"{str(error).splitlines()[0]}; max_tokens is {max_tokens!r}.") from None

    def _run(
        self,
        ids: Sequence[Int32],
        types: Sequence[Int32] | None,
        cache: Any,
        outputs: Sequence[str] | None,
        profile: dict[str, float] | None,
        *,
        fill_nan: bool,
    ) -> dict[str, Float32]:
        names = buffers_of(self.graph, self.graph.outputs[:1] if outputs is None else outputs)
        packed, offsets = _pack("ids", ids)
        packed_types = None
        if types is not None:
            packed_types, type_offsets = _pack("types", types)
            if not np.array_equal(offsets, type_offsets):
                raise ShapeError("run: types has other lengths than ids; pass one type a token.")
        caches = None if cache is None else list(cache) if isinstance(cache, (list, tuple)) else [cache]
        seconds = None if profile is None else np.zeros(len(self.graph.steps))
        buffers = [self._buffers[name] for name in names]
        try:
            arrays = self._native.run(packed, offsets, packed_types, caches, buffers, seconds, fill_nan)
        except ValueError as error:
            raise InvalidArgument(f"{error}.") from None
        if profile is not None and seconds is not None:
            for step, spent in zip(self.graph.steps, seconds.tolist(), strict=True):
                if spent:
                    profile[step["op"]] = profile.get(step["op"], 0.0) + spent
        return dict(zip(names, arrays, strict=True))

    def _native_step(self, step: Step, tensors: Mapping[str, Array], linears: Mapping[str, Variants]) -> dict[str, Any]:
        """The step as the native module reads it: buffers as numbers, tensors as arrays."""
        op = step["op"]
        found = {name: step[name] for name in _PLAIN if name in step}
        inputs = {"glu": ("gate", "up"), "add": ("a", "b"), "attention": ("q", "k", "v")}.get(op, ("in",))
        for key, name in zip(("in", "in2", "in3"), inputs, strict=False):
            if name in step:
                found[key] = self._slices[step[name]]
        for name in ("out", "residual"):
            if name in step:
                found[name] = self._slices[step[name]]
        for name in ("weight", "bias", "freqs"):
            if name in step:
                found[name] = _float32(step[name], tensors[step[name]])
        if op == "last":
            found.update(op="pool", mode="last")
        elif op == "embed":
            found["table"], found["dtype"] = _table(step["table"], tensors[step["table"]])
        elif op == "attention" and "bias" in step:
            found["reach"] = (found["bias"].shape[1] + 1) // 2
        elif op == "linear":
            if step["linear"] not in linears:
                raise FormatError(f"program: linears has no {step['linear']!r}; pass one packed matrix a weight.")
            limits = [(_UNBOUNDED if most is None else most, packed) for most, packed in linears[step["linear"]]]
            found["variants"] = limits
        return found


def _pack(name: str, sequences: Sequence[Int32]) -> tuple[Int32, npt.NDArray[np.int64]]:
    """Sequences one behind the other, and where each begins."""
    if (isinstance(sequences, np.ndarray) and sequences.ndim == 1) or not len(sequences):
        raise ShapeError(f"run: {name} must be a sequence of arrays, one a sequence; pass [{name}].")
    arrays = [np.asarray(item) for item in sequences]
    for array in arrays:
        if array.ndim != 1 or array.dtype.kind not in "iu":
            raise ShapeError(
                f"run: {name} holds an array of shape {array.shape}, dtype {array.dtype}; pass whole numbers (tokens,)."
            )
        if array.dtype.itemsize > 4 and array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
            raise InvalidArgument(f"run: {name} holds numbers beyond 32 bits; pass {name} of the model's tokenizer.")
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([array.size for array in arrays], out=offsets[1:])
    # A copy in any case: what was checked must not change while the run reads it.
    return np.concatenate(arrays).astype(np.int32, copy=False), offsets


def _float32(name: str, array: Array) -> Float32:
    if array.dtype != np.float32:
        raise FormatError(f"program: tensor {name!r} has dtype {array.dtype}, it must be float32; convert it.")
    return np.ascontiguousarray(array)


def _table(name: str, array: Array) -> tuple[Array, str]:
    dtypes = {"float32": "float32", "float16": "float16", "uint16": "bfloat16"}
    if array.dtype.name not in dtypes:
        raise FormatError(f"program: table {name!r} has dtype {array.dtype}, it must be one of {', '.join(dtypes)}.")
    whole = np.ascontiguousarray(array)
    return (whole.view(np.uint16) if whole.itemsize == 2 else whole), dtypes[array.dtype.name]
