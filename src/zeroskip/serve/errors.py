"""What a client is told when a request cannot be answered: OpenAI's JSON shape, whatever went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping


class ApiError(Exception):
    """A request that is answered with an error.

    Args:
        status: The HTTP status.
        message: One sentence for the client: the field, what is wrong with it, the mend.
        code: A word for programs.
        param: The field of the request that is wrong.
        headers: More headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> bytes:
        """The JSON document."""
        return error_body(self.status, self.message, self.code, self.param)


class ClientGone(Exception):
    """The client closed the connection before the answer was there."""


def error_body(status: int, message: str, code: str, param: str | None = None) -> bytes:
    """An error in OpenAI's shape."""
    kind = _kind(status)
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


def _kind(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def bad(param: str | None, message: str, code: str = "invalid_value") -> ApiError:
    """A request whose field `param` is wrong."""
    return ApiError(400, message, code, param=param)


def stopping() -> ApiError:
    """The server finishes what it has and takes nothing new."""
    return ApiError(
        503,
        "The server is stopping; send the request to another one.",
        "stopping",
        headers={"Retry-After": "5", "Connection": "close"},
    )
