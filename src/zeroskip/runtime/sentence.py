"""A SentenceTransformer compiled in place: its `encode` becomes the fast one, and everything else stays."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .compiled import CompiledModel

# Arguments of `encode` that the fast path honours; any other that is set goes to the original.
_HONOURED = {
    "batch_size",
    "show_progress_bar",
    "convert_to_numpy",
    "convert_to_tensor",
    "normalize_embeddings",
    "prompt",
    "prompt_name",
}


def take_over(transformer: Any, compiled: CompiledModel) -> None:
    """Replace `encode` of a SentenceTransformer object; `transformer.zeroskip` is the compiled model.

    Compiling again replaces the fast path, the original `encode` stays where it was.
    """
    original = getattr(transformer, "_zeroskip_original_encode", None) or transformer.encode
    transformer._zeroskip_original_encode = original
    transformer.zeroskip = compiled
    transformer.encode = types.MethodType(_encoder(original), transformer)


def give_back(transformer: Any) -> None:
    """Undo `take_over`."""
    for name in ("encode", "zeroskip", "_zeroskip_original_encode"):
        transformer.__dict__.pop(name, None)


def _encoder(original: Callable[..., Any]) -> Callable[..., Any]:
    signature = inspect.signature(original)

    def encode(self: Any, *args: Any, **given: Any) -> Any:
        """`SentenceTransformer.encode` on the compiled model; what it does not do goes to the original."""
        try:
            options = dict(signature.bind(*args, **given).arguments)
        except TypeError:
            return original(*args, **given)  # it says what is wrong
        options.update(options.pop("kwargs", {}))
        sentences = options.pop(next(iter(signature.parameters)))  # called sentences or inputs
        if not _is_text(sentences) or not _honoured(self, options):
            return original(*args, **given)
        single = isinstance(sentences, str)
        prefix = _prompt(self, options)
        texts = [prefix + text for text in ([sentences] if single else sentences)]
        _same_limit(self)
        with _Bar(options.get("show_progress_bar"), len(texts)) as bar:
            vectors = self.zeroskip.embed(
                texts,
                batch_size=options.get("batch_size"),
                normalize=True if options.get("normalize_embeddings") else None,
                progress=bar,
            )
        return _as_asked(vectors[0] if single else vectors, options)

    return encode


def _same_limit(transformer: Any) -> None:
    """`max_seq_length` can be set on the object at any time; a longer one than the model's positions stays cut."""
    text, limit = transformer.zeroskip.text, getattr(transformer, "max_seq_length", None)
    most = transformer.zeroskip.max_positions
    wanted = min((item for item in (limit, most) if item), default=None)
    if wanted != text.settings.max_length:
        text.settings = replace(text.settings, max_length=wanted)


def _is_text(sentences: Any) -> bool:
    if isinstance(sentences, str):
        return True
    listed = isinstance(sentences, list | tuple | np.ndarray)
    return listed and all(isinstance(item, str) for item in sentences)


def _honoured(transformer: Any, options: dict[str, Any]) -> bool:
    """Whether the fast path does all that is asked for."""
    for name, value in options.items():
        if name == "output_value" and value == "sentence_embedding":
            continue
        if name == "precision" and value == "float32":
            continue
        if name not in _HONOURED and value not in (None, False):
            return False
    pools_prompt = getattr(transformer, "include_prompt_for_pooling", True)
    return getattr(transformer, "truncate_dim", None) is None and (pools_prompt or not _prompt(transformer, options))


def _prompt(transformer: Any, options: dict[str, Any]) -> str:
    """What is put before each text: the prompt given, the named one, or the model's default."""
    if options.get("prompt") is not None:
        return str(options["prompt"])
    name = options.get("prompt_name") or getattr(transformer, "default_prompt_name", None)
    return str((getattr(transformer, "prompts", None) or {}).get(name) or "") if name else ""


def _as_asked(vectors: Any, options: dict[str, Any]) -> Any:
    """A tensor, an array, or a list of tensors, as `encode` promises."""
    if options.get("convert_to_tensor"):
        import torch

        return torch.from_numpy(np.ascontiguousarray(vectors))
    if options.get("convert_to_numpy", True):
        return vectors
    import torch

    tensors = torch.from_numpy(np.ascontiguousarray(vectors))
    return tensors if vectors.ndim == 1 else list(tensors)


class _Bar:
    """The progress bar of sentence-transformers, if one is asked for."""

    def __init__(self, wanted: Any, total: int) -> None:
        self._bar: Any = None
        if wanted:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, desc="Sentences")

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(done - self._bar.n)

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()


__all__: Sequence[str] = ("give_back", "take_over")
