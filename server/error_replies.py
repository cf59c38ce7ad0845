"""Exception handlers: every failure, ours or the framework's, becomes a reply with the one error body."""

from __future__ import annotations

from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from server.errors import ApiError, ClientGoneError, bad_request, echo
from server.routes.routers import allowed_methods
from server.service import service_of
from server.telemetry.request_record import RECORD, REQUEST_ID_HEADER


def install(app: FastAPI) -> None:
    """Adds the handlers to `app`."""
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_query_error)
    app.add_exception_handler(ClientGoneError, _on_client_gone)
    app.add_exception_handler(Exception, _on_fault)


async def _on_api_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    return _reply(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """The framework's own refusals: no such route, or a method that the route does not take."""
    if not isinstance(error, HTTPException):
        raise error
    wanted = f"{request.method} {echo(request.url.path)}"
    message = {404: f"There is no route {wanted}.", 405: f"{wanted} is not allowed."}.get(
        error.status_code, echo(error.detail)
    )
    headers = dict(error.headers or {})
    if error.status_code == 405:
        # The framework names the methods of the first route that matches the path, not of all of them.
        headers["Allow"] = allowed_methods(request.url.path)
    return _reply(request, ApiError(error.status_code, message), headers)


async def _on_query_error(request: Request, error: Exception) -> Response:
    """Query and path parameters: FastAPI validates only these, `read_body` validates bodies."""
    first = (
        error.errors()[0] if isinstance(error, RequestValidationError) else {"loc": ("",), "msg": str(error)}
    )
    param = echo(first["loc"][-1])
    return _reply(request, bad_request(f"`{param}`: {echo(first['msg'])}", param))


async def _on_client_gone(request: Request, error: Exception) -> Response:
    # The client does not get this; 499 is the customary status in the access log.
    return Response(status_code=499)


async def _on_fault(request: Request, error: Exception) -> Response:
    """Any other exception is a fault of the server's; the client learns nothing of it but the request's id."""
    record = request.scope.get(RECORD)
    # The framework raises the exception again after the reply, and the HTTP server then closes the connection.
    headers = {"Connection": "close"}
    if record is not None:
        headers[REQUEST_ID_HEADER] = record.request_id
    return _reply(request, ApiError(500, "The server failed on this request; its log says why."), headers)


def _reply(request: Request, error: ApiError, headers: Mapping[str, str] | None = None) -> JSONResponse:
    service_of(request).metrics.count_error(error.status)
    # Anthropic's clients read the kind of the body too.
    kind = {"type": "error"} if request.url.path.startswith("/v1/messages") else {}
    return JSONResponse(
        {**kind, **error.body()}, status_code=error.status, headers={**error.headers(), **(headers or {})}
    )
