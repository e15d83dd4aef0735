"""Limits and names of a server, checked before it starts."""

from __future__ import annotations

from dataclasses import dataclass

from .._errors import InvalidArgument

MIB = 2**20


@dataclass(frozen=True)
class Settings:
    """What a server is told.

    Args:
        name: How clients call the model; None for the name in the compiled folder.
        batch_tokens: Most tokens of one run, but for a single longer text; None: 1024, or 256 a thread if more.
        max_wait_ms: How long an idle worker waits for texts that are on their way before it runs what it has.
        queue_texts: Most texts that wait; a request beyond that is told to come back (429).
        max_texts: Most texts of one request.
        max_body_bytes: Most bytes of a request's body.
        body_timeout_s: How long a client may take to send its body.
        grace_s: How long a stopping server works on what it has accepted.
        refuse_long: Whether a text of more tokens than the model takes is an error instead of being cut.
        keys: API keys, of which a request must bring one; none for an open server.
        log_format: `json`, `text`, or `off`.
    """

    name: str | None = None
    batch_tokens: int | None = None
    max_wait_ms: float = 2.0
    queue_texts: int = 8192
    max_texts: int = 2048
    max_body_bytes: int = 8 * MIB
    body_timeout_s: float = 10.0
    grace_s: float = 30.0
    refuse_long: bool = False
    keys: tuple[bytes, ...] = ()
    log_format: str = "json"

    def __post_init__(self) -> None:
        for field in ("batch_tokens", "queue_texts", "max_texts", "max_body_bytes"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise InvalidArgument(f"serve: {field} is {value}, it must be at least 1.")
        for field in ("max_wait_ms", "body_timeout_s", "grace_s"):
            if not 0 <= getattr(self, field) < 1e9:
                raise InvalidArgument(f"serve: {field} is {getattr(self, field)}, it must be a time of at least 0.")
        if self.queue_texts < self.max_texts:
            raise InvalidArgument(
                f"serve: queue_texts is {self.queue_texts} but one request may bring {self.max_texts} texts; "
                f"pass queue_texts of at least {self.max_texts}, or a smaller max_texts."
            )
        if self.log_format not in ("json", "text", "off"):
            raise InvalidArgument(f"serve: log_format is {self.log_format!r}, it must be json, text or off.")
        if not all(self.keys):
            raise InvalidArgument("serve: keys holds an empty key, with which everybody could enter; remove it.")
