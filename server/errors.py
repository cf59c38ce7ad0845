"""Every error a client sees: `{"error": {"message", "type", "param", "code"}}`, `code` being the HTTP status."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from server.documents.openapi import allowed_methods
from server.telemetry.request_record import RECORD, REQUEST_ID_HEADER

logger = logging.getLogger(__name__)

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
    """The kind of error that goes with an HTTP status."""
    return _TYPES.get(status, "invalid_request_error")


def echo(value: object) -> str:
    """A client's input as a message may repeat it: at most `ECHO_LIMIT` characters."""
    text = str(value)
    return text if len(text) <= ECHO_LIMIT else text[: ECHO_LIMIT - 1] + "…"


class ApiError(Exception):
    """A reply that is an error. `param` names the request's field at fault, where there is one."""

    def __init__(self, status: int, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param

    def body(self) -> dict[str, object]:
        """The JSON body, also sent as one event where a stream has begun."""
        kind = error_type(self.status)
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.status}}

    def headers(self) -> dict[str, str]:
        """`Retry-After` where trying again can help, the challenge that a 401 owes, and what ends an unread body."""
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_AFTER_SECONDS)}
        if self.status in (408, 413, 415):
            # The rest of the body is not wanted.
            return {"Connection": "close"}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


def bad_request(message: str, param: str | None) -> ApiError:
    """A 400 that names the field at fault."""
    return ApiError(400, message, param=param)


def unavailable(message: str) -> ApiError:
    """A 503 with `Retry-After`."""
    return ApiError(503, message)


def from_validation(error: ValidationError) -> ApiError:
    """The first of pydantic's complaints, as a 400 that names the field."""
    first = error.errors(include_url=False, include_input=False)[0]
    location = first["loc"]
    if not location:
        return bad_request(f"The body is not a valid JSON object: {echo(first['msg'])}", None)
    # A field name that we do not know is the client's input too.
    param = echo(location[0])
    path = echo(".".join(str(part) for part in location))
    if first["type"] == "extra_forbidden":
        return bad_request(f"`{path}` is not a field of this request.", param)
    if first["type"] == "missing":
        return bad_request(f"`{path}` is required.", param)
    cause = first.get("ctx", {}).get("error")
    message = str(cause) if isinstance(cause, ValueError) else first["msg"]
    return bad_request(f"`{path}`: {message}", param)


def respond(error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The error as an HTTP reply."""
    return JSONResponse(
        error.body(), status_code=error.status, headers={**error.headers(), **(headers or {})}
    )


async def _on_api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    request.app.state.service.metrics.count_error(error.status)
    return respond(error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    request.app.state.service.metrics.count_error(error.status_code)
    wanted = f"{request.method} {echo(request.url.path)}"
    message = {404: f"There is no route {wanted}.", 405: f"{wanted} is not allowed."}.get(
        error.status_code, echo(error.detail)
    )
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The framework knows the methods of one of the path's routes only.
        headers["Allow"] = allowed_methods(request.url.path)
    return respond(ApiError(error.status_code, message), headers)


async def _on_query_error(request: Request, error: Exception) -> Response:
    # Only query and path parameters are FastAPI's to validate; bodies are read in `body.py`.
    request.app.state.service.metrics.count_error(400)
    first = (
        error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": ("",), "msg": str(error)}
    )
    param = echo(first["loc"][-1])
    return respond(bad_request(f"`{param}`: {echo(first['msg'])}", param))


async def _on_fault(request: Request, error: Exception) -> Response:
    request.app.state.service.metrics.count_error(500)
    record = request.scope.get(RECORD)
    headers = {REQUEST_ID_HEADER: record.request_id} if record is not None else {}
    return respond(ApiError(500, "The server failed on this request; its log says why."), headers)


def install(app: FastAPI) -> None:
    """Gives every failure of `app`, ours or the framework's, the one error body."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_query_error)
    app.add_exception_handler(Exception, _on_fault)
