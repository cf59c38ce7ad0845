"""The errors of the API: `{"error": {"message", "type", "param", "code"}}`; `code` is the HTTP status as a string.

OpenAI's schema has `code` as a string or null, and typed clients refuse a number.
"""

from __future__ import annotations

from pydantic import ValidationError

ECHO_LIMIT = 200
"""The most characters of a client's input that a message repeats."""

RETRY_AFTER_SECONDS = 5

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "internal_error",
    503: "unavailable_error",
}


def error_type(status: int) -> str:
    """The error's `type` for an HTTP status."""
    return _TYPES.get(status, "invalid_request_error")


def echo(value: object) -> str:
    """A client's input, cut to `ECHO_LIMIT` characters, for an error message to repeat."""
    text = str(value)
    return text if len(text) <= ECHO_LIMIT else text[: ECHO_LIMIT - 1] + "…"


class ApiError(Exception):
    """An error that is sent to the client. `param` names the request's field at fault, where there is one."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    def body(self) -> dict[str, object]:
        """The JSON body; in a stream that has begun, the content of its last event."""
        kind = error_type(self.status)
        return {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": str(self.status)}
        }

    def headers(self) -> dict[str, str]:
        """The headers that this status calls for.

        `Retry-After` for 429 and 503, `WWW-Authenticate` for 401, `Connection: close` where the body is left unread.
        """
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_AFTER_SECONDS)}
        if self.status in (408, 413, 415):
            return {"Connection": "close"}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


class ClientGoneError(Exception):
    """The client has closed its connection, so no reply can reach it."""


def bad_request(message: str, param: str | None) -> ApiError:
    """A 400 that names the field at fault."""
    return ApiError(400, message, param=param)


def unavailable(message: str) -> ApiError:
    """A 503 with `Retry-After`."""
    return ApiError(503, message)


def from_validation(error: ValidationError) -> ApiError:
    """The first of pydantic's errors, as a 400 that names the field."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = first["loc"]
    if not location:
        return bad_request(f"The body is not a valid JSON object: {echo(first['msg'])}", None)
    # The name of an unknown field is the client's input too, so it is cut like any other.
    param = echo(location[0])
    path = echo(".".join(str(part) for part in location))
    if first["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        return bad_request(f"`{path}` is not a field of this request.", param)
    if first["type"] == "missing":
        return bad_request(f"`{path}` is required.", param)
    cause = first.get("ctx", {}).get("error")
    message = str(cause) if isinstance(cause, ValueError) else first["msg"]
    return bad_request(f"`{path}`: {message}", param)
