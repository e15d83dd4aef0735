"""API keys: from the environment or a file, compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Sequence
from pathlib import Path

from .._errors import InvalidArgument

VARIABLE = "ZEROSKIP_API_KEY"


def read_keys(file: str | os.PathLike[str] | None) -> tuple[bytes, ...]:
    """The keys of a server: those in ZEROSKIP_API_KEY, separated by commas, and the lines of a file.

    Args:
        file: One key a line; empty lines and lines that begin with # do not count.
    Raises:
        InvalidArgument: If a place is named that holds no key.
    """
    found: list[str] = []
    named = os.environ.get(VARIABLE)
    if named is not None:
        found += _some(VARIABLE, named.split(","))
    if file is not None:
        try:
            lines = Path(file).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise InvalidArgument(f"serve: api_key_file {str(file)!r} cannot be read ({reason}).") from None
        found += _some(str(file), [line for line in lines if not line.startswith("#")])
    return tuple(dict.fromkeys(key.encode() for key in found))


def _some(where: str, keys: Sequence[str]) -> list[str]:
    found = [key.strip() for key in keys if key.strip()]
    if not found:
        raise InvalidArgument(
            f"serve: {where} holds no key, which would open the server to all; set one, or remove it."
        )
    return found


class Keys:
    """Tells whether a request brings a key.

    Args:
        keys: Those that are let in; none for an open server.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._digests = [hashlib.sha256(key).digest() for key in keys]

    def admit(self, authorization: bytes | None) -> bool:
        """Whether the Authorization header holds a key. Takes the same time for every wrong one."""
        if not self._digests:
            return True
        scheme, _, key = (authorization or b"").partition(b" ")
        given = hashlib.sha256(key.strip()).digest()
        # All are compared, whichever fits; digests, because compare_digest shows the length of what it compares.
        fits = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == b"bearer" and any(fits)
