"""The text side of a model: tokenizer, chat template, limits. Needs the `tokenizers` package when texts are used."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .._errors import DamagedFile, InvalidArgument, MissingDependency
from ..io import TOKENIZER
from ..io.fields import Fields

Ids = npt.NDArray[np.int32]

POOLINGS = ("mean", "cls", "max")
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token")
_FILE_LIMIT_BYTES = 32 * 2**20


@dataclass(frozen=True)
class TextSettings:
    """What zeroskip.json says of texts.

    Args:
        max_length: Most tokens of a text, special ones counted; longer ones are cut.
        pooling: How token vectors become one: mean, cls or max; None for decoders.
        normalize: Whether embeddings have length 1.
        stop_ids: Token ids that end a generation.
        special: Special tokens by role (`bos_token`, ...), for the chat template.
        chat_template: Jinja template of a conversation.
    """

    max_length: int | None = None
    pooling: str | None = None
    normalize: bool = False
    stop_ids: tuple[int, ...] = ()
    special: Mapping[str, str] = field(default_factory=dict)
    chat_template: str | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "max_length": self.max_length,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "stop_ids": list(self.stop_ids),
            "special": dict(self.special),
            "chat_template": self.chat_template,
        }

    @classmethod
    def from_json(cls, where: str, value: Any) -> TextSettings:
        """Read what `as_json` wrote; DamagedFile if it is something else."""
        fields = Fields(where, value)
        special = fields.child("special")
        return cls(
            max_length=fields.optional_integer("max_length", 1),
            pooling=fields.choice("pooling", POOLINGS) if "pooling" in fields else None,
            normalize=fields.flag("normalize"),
            stop_ids=tuple(fields.integers("stop_ids")),
            special={key: special.text(key, limit=1000) for key, _ in special.items()},
            chat_template=fields.optional_text("chat_template"),
        )


class Text:
    """Tokenizer and settings; the tokenizer is parsed when a text is first used.

    Args:
        settings: Limits, pooling, special tokens.
        files: The tokenizer's files by name; `tokenizer.json` is the one that is used.
    """

    def __init__(self, settings: TextSettings, files: Mapping[str, bytes]) -> None:
        self.settings = settings
        self.files = dict(files)
        self._tokenizer: Any = None
        self._limit: int | None = None

    def encode(self, texts: Sequence[str], *, special: bool = True, cut: bool = True) -> list[Ids]:
        """Token ids of each text, without padding.

        Args:
            texts: What to tokenise.
            special: Whether to add the special tokens that the model was trained with.
            cut: Whether to cut to `max_length`.
        """
        return [_ids(item) for item in self._encodings(texts, special, cut)]

    def encode_cut(self, texts: Sequence[str]) -> tuple[list[Ids], list[bool]]:
        """Token ids of each text, cut to `max_length`, and whether each was cut.

        Once it has been called, threads may call it at the same time, as long as none cuts otherwise by `encode`.
        """
        encoded = self._encodings(texts, special=True, cut=True)
        most = self.settings.max_length
        # What was cut off is asked for only where something may be: the tokenizer builds it when asked.
        return [_ids(item) for item in encoded], [len(item.ids) == most and bool(item.overflowing) for item in encoded]

    def _encodings(self, texts: Sequence[str], special: bool, cut: bool) -> list[Any]:
        for index, text in enumerate(texts):
            if not isinstance(text, str):
                raise InvalidArgument(f"encode: texts[{index}] is a {type(text).__name__}; pass strings.")
        tokenizer = self._load()
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        with _guarded():
            self._cut_to(tokenizer, self.settings.max_length if cut else None)
            batch = getattr(tokenizer, "encode_batch_fast", tokenizer.encode_batch)
            encoded: list[Any] = batch(clean, add_special_tokens=special)
        return encoded

    def _cut_to(self, tokenizer: Any, most: int | None) -> None:
        """Set the tokenizer's limit where it has another: setting it is no matter of threads."""
        if most == self._limit:
            return
        if most:
            tokenizer.enable_truncation(most)
        else:
            tokenizer.no_truncation()
        self._limit = most

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some token ids, special tokens left out."""
        tokenizer = self._load()
        with _guarded():
            text: str = tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    def chat(self, messages: Sequence[Mapping[str, str]]) -> Ids:
        """Token ids of a conversation in the form that the model was trained on, up to where its answer begins."""
        template = self.settings.chat_template
        if not template:
            raise InvalidArgument(
                "generate: chat is True but this model has no chat template; pass chat=False, or tokens of your own."
            )
        try:
            from jinja2.exceptions import TemplateError
            from jinja2.sandbox import ImmutableSandboxedEnvironment
        except ImportError as error:
            raise MissingDependency("generate: a chat template needs jinja2; pip install 'zeroskip[demo]'.") from error
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _refuse
        environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
        try:
            rendered = environment.from_string(template).render(
                messages=list(messages), add_generation_prompt=True, **self.settings.special
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise InvalidArgument(
                f"generate: the model's chat template cannot be applied ({error}); pass chat=False."
            ) from error
        return self.encode([rendered], special=False, cut=False)[0]

    def _load(self) -> Any:
        if self._tokenizer is None:
            if TOKENIZER not in self.files:
                raise InvalidArgument(
                    "encode: the model was compiled without a tokenizer; pass token ids, or compile with tokenizer=..."
                )
            self._tokenizer = _parse(self.files[TOKENIZER])
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
        return self._tokenizer


def _ids(encoding: Any) -> Ids:
    return np.asarray(encoding.ids, dtype=np.int32)


def _parse(content: bytes) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise MissingDependency("encode: texts need the tokenizers package; pip install 'zeroskip[models]'.") from error
    with _guarded():
        return Tokenizer.from_buffer(content)


@contextmanager
def _guarded() -> Iterator[None]:
    """What the tokenizer library raises or panics over is a damaged file: texts are checked before."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # a panic is no Exception
        reason = " ".join(str(error).split())[:160]
        raise DamagedFile(
            f"load: {TOKENIZER} cannot be used as a tokenizer ({reason}); copy the model again."
        ) from None


def _refuse(message: str) -> None:
    from jinja2.exceptions import TemplateError

    raise TemplateError(message)


def text_of(tokenizer: Any, settings: TextSettings) -> Text:
    """The text side of a model whose tokenizer is a Hugging Face one, a `tokenizers.Tokenizer`, a path, or None."""
    if tokenizer is None:
        return Text(settings, {})
    if isinstance(tokenizer, str | Path):
        path = Path(tokenizer)
        path = path / TOKENIZER if path.is_dir() else path
        if not path.is_file():
            raise InvalidArgument(f"compile: tokenizer is {str(tokenizer)!r}, where there is no {TOKENIZER}; check it.")
        return Text(settings, {TOKENIZER: path.read_bytes()})
    if hasattr(tokenizer, "to_str") and not hasattr(tokenizer, "save_pretrained"):
        return Text(settings, {TOKENIZER: tokenizer.to_str().encode()})
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise InvalidArgument(
            f"compile: tokenizer is a {type(tokenizer).__name__} without a fast form; load it with use_fast=True."
        )
    files = _saved_files(tokenizer)
    return Text(settings, {**files, TOKENIZER: backend.to_str().encode()})


def _saved_files(tokenizer: Any) -> dict[str, bytes]:
    """What the tokenizer itself would save, so that other programs find their files too."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        found = [path for path in Path(folder).iterdir() if path.is_file()]
        return {path.name: path.read_bytes() for path in found if path.stat().st_size <= _FILE_LIMIT_BYTES}


def special_tokens(tokenizer: Any) -> dict[str, str]:
    """The special tokens of a Hugging Face tokenizer by role."""
    found = {role: getattr(tokenizer, role, None) for role in _SPECIAL}
    return {role: str(token) for role, token in found.items() if token is not None}
