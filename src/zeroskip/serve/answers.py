"""Vectors as the client wants them: JSON numbers, or base64 of little-endian float32."""

from __future__ import annotations

import base64
import json
from functools import cache

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]


def embeddings(vectors: Float32, *, as_base64: bool, model: str, tokens: int) -> bytes:
    """The answer to a request.

    Args:
        vectors: (texts, features), one a text, in the order of the request.
        as_base64: Whether vectors are base64 strings, else lists of numbers.
        model: The name of the model.
        tokens: Tokens that were run.
    """
    coded = _as_base64 if as_base64 else _as_numbers
    rows = [b'{"object":"embedding","index":%d,"embedding":%b}' % (row, coded(v)) for row, v in enumerate(vectors)]
    name = json.dumps(model).encode()
    return b'{"object":"list","data":[%b],"model":%b,"usage":{"prompt_tokens":%d,"total_tokens":%d}}' % (
        b",".join(rows),
        name,
        tokens,
        tokens,
    )


def _as_base64(vector: Float32) -> bytes:
    return b'"%b"' % base64.b64encode(vector.astype("<f4").tobytes())


def _as_numbers(vector: Float32) -> bytes:
    """Nine digits, which give every float32 back exactly; one format call is twice as fast as json.dumps."""
    return (_template(vector.size) % tuple(vector.tolist())).encode()


@cache
def _template(size: int) -> str:
    return "[" + ",".join(["%.9g"] * size) + "]"
