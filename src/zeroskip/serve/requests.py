"""The body of a POST to /v1/embeddings: read within limits, and understood or refused field by field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeAlias

import anyio
import numpy as np

from ..runtime.text import Ids
from .errors import ApiError, ClientGone, bad
from .settings import Settings

Inputs: TypeAlias = "list[str] | list[Ids]"

FORMATS = ("float", "base64")
_FIELDS = ("input", "model", "encoding_format", "dimensions", "user")
# What is left of a body that was not read would be taken for the next request.
_CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class Asked:
    """A request that makes sense.

    Args:
        inputs: Texts, or token ids; one vector is wanted for each.
        base64: Whether vectors are wanted as base64 of little-endian float32, else as lists of numbers.
    """

    inputs: Inputs
    base64: bool


@dataclass(frozen=True)
class Known:
    """What a request is checked against: the model that answers.

    Args:
        name: How clients call it.
        features: Numbers of a vector.
        vocabulary: Token ids are below it.
    """

    name: str
    features: int
    vocabulary: int


async def read_body(receive: Any, length: str | None, settings: Settings) -> bytes:
    """The whole body.

    Args:
        receive: ASGI's.
        length: The Content-Length header, where there is one.
        settings: Most bytes, most seconds.
    Raises:
        ApiError: 413 if it is too long, 408 if it comes too slowly.
        ClientGone: If the client closed the connection.
    """
    limit = settings.max_body_bytes
    if length is not None and length.isdigit() and int(length[:20]) > limit:
        raise _too_long(limit)
    pieces: list[bytes] = []
    size = 0
    with anyio.move_on_after(settings.body_timeout_s):
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece = message.get("body", b"")
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise _too_long(limit)
            if not message.get("more_body"):
                return b"".join(pieces)
    raise ApiError(
        408,
        f"The body did not arrive within {settings.body_timeout_s:g} s; send it faster.",
        "body_timeout",
        headers=_CLOSE,
    )


def understand(body: bytes, known: Known, settings: Settings) -> Asked:
    """Check a body.

    Raises:
        ApiError: 400 or 404, naming the field.
    """
    fields = _fields(body)
    _check_model(fields, known)
    form = fields.get("encoding_format")
    if form is not None and form not in FORMATS:
        raise bad("encoding_format", f"encoding_format is {_shown(form)}; it must be 'float' or 'base64'.")
    dimensions = fields.get("dimensions")
    if dimensions is not None and (type(dimensions) is not int or dimensions != known.features):
        raise bad(
            "dimensions",
            f"dimensions is {_shown(dimensions)}, but the vectors of {known.name!r} have {known.features} numbers and "
            "cannot be shortened; leave the field out.",
        )
    user = fields.get("user")
    if user is not None and not isinstance(user, str):
        raise bad("user", f"user is {_shown(user)}; it must be a string.")
    if "input" not in fields:
        raise bad("input", "input is missing; pass a string, a list of strings, or token ids.", "missing_field")
    return Asked(_inputs(fields["input"], known, settings), form == "base64")


def _fields(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise bad(None, f"The body is not UTF-8: {error.reason} at byte {error.start}.", "invalid_utf8") from None
    except RecursionError:
        raise bad(None, "The body is nested too deeply to be a request.", "invalid_json") from None
    except ValueError as error:
        raise bad(None, f"The body is not JSON: {error}.", "invalid_json") from None
    if not isinstance(found, dict):
        raise bad(None, f"The body is {_shown(found)}; it must be a JSON object with input and model.", "invalid_json")
    if unknown := [name for name in found if name not in _FIELDS]:
        raise bad(
            str(unknown[0])[:100],
            f"{_shown(unknown[0])} is no field of this request; it has {', '.join(_FIELDS)}.",
            "unknown_field",
        )
    return found


def _check_model(fields: dict[str, Any], known: Known) -> None:
    model = fields.get("model")
    if model is None:
        raise bad("model", f"model is missing; this server has {known.name!r}.", "missing_field")
    if not isinstance(model, str):
        raise bad("model", f"model is {_shown(model)}; it must be a string.")
    if model != known.name:
        raise unknown_model(model, known.name)


def unknown_model(asked: str, name: str) -> ApiError:
    """404: this server has another model."""
    return ApiError(
        404, f"The model {_shown(asked)} does not exist; this server has {name!r}.", "model_not_found", param="model"
    )


def _inputs(value: Any, known: Known, settings: Settings) -> Inputs:
    if isinstance(value, str):
        return [_text("input", value)]
    if not isinstance(value, list):
        raise bad("input", f"input is {_shown(value)}; it must be a string, a list of strings, or token ids.")
    if not value:
        raise bad("input", "input is an empty list; pass at least one text.", "empty_input")
    if type(value[0]) is int:
        return [_ids("input", value, known.vocabulary)]
    if len(value) > settings.max_texts:
        raise bad(
            "input",
            f"input has {len(value)} texts, a request may have {settings.max_texts}; send several requests.",
            "too_many_inputs",
        )
    if isinstance(value[0], list):
        return [_ids(f"input[{index}]", item, known.vocabulary) for index, item in enumerate(value)]
    return [_text(f"input[{index}]", item) for index, item in enumerate(value)]


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise bad("input", f"{where} is {_shown(value)}; it must be a string, as the others.")
    if not value:
        raise bad("input", f"{where} is an empty string; leave it out.", "empty_input")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise bad(
            "input",
            f"{where} holds half a surrogate pair at character {error.start}, which is no text.",
            "invalid_utf8",
        ) from None
    return value


def _ids(where: str, value: Any, vocabulary: int) -> Ids:
    if not isinstance(value, list):
        raise bad("input", f"{where} is {_shown(value)}; it must be a list of token ids, as the others.")
    if not value:
        raise bad("input", f"{where} is an empty list; pass at least one token.", "empty_input")
    for place, item in enumerate(value):
        if type(item) is not int:
            raise bad("input", f"{where}[{place}] is {_shown(item)}; it must be a token id, as the others.")
    low, high = min(value), max(value)
    if low < 0 or high >= vocabulary:
        wrong = low if low < 0 else high
        raise bad("input", f"{where} holds token id {_shown(wrong)}; ids of this model are 0 to {vocabulary - 1}.")
    return np.asarray(value, dtype=np.int32)


def _shown(value: Any) -> str:
    """A value as the client wrote it, but short; what it is where that is too long."""
    names = {dict: "an object", list: "a list", bool: "true" if value is True else "false", type(None): "null"}
    if type(value) in names:
        return names[type(value)]
    if isinstance(value, str):
        return repr(value[:60]) + ("..." if len(value) > 60 else "")
    return repr(value) if not isinstance(value, int) or abs(value) < 10**30 else "a very large number"


def _too_long(limit: int) -> ApiError:
    return ApiError(
        413, f"The body is longer than {limit} bytes; send fewer texts at a time.", "body_too_large", headers=_CLOSE
    )
