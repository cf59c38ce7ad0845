"""The middleware around every request: its id, its log line, its trace, and the end of clients that stop reading."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ECHO_LIMIT
from server.service import Service
from server.telemetry.request_record import CURRENT, RECORD, REQUEST_ID_HEADER, RequestRecord, request_id_from
from server.telemetry.traces import Tracing

logger = logging.getLogger("server.access")

DROP_CONNECTION = "trimtab.drop_connection"
"""The key, in a request's ASGI scope, of the function that closes its connection; set by a server that has one."""


class _ClientStalledError(OSError):
    """The client has stopped reading its reply; an OSError, as for a client that has left."""


class RequestMiddleware:
    """The outermost middleware, inside only the framework's own handler of faults."""

    def __init__(self, app: ASGIApp, service: Service, tracing: Tracing) -> None:
        self._app = app
        self._send_timeout = service.config.send_timeout
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        raw_path: bytes = scope.get("raw_path") or scope["path"].encode()
        record = RequestRecord(
            request_id=request_id_from(headers.get(REQUEST_ID_HEADER, "")),
            method=scope["method"],
            path=ascii(raw_path.decode("latin-1"))[1:-1][:ECHO_LIMIT],
        )
        scope[RECORD] = record
        token = CURRENT.set(record)
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            with self._tracing.span(record, headers):
                try:
                    await self._app(scope, receive, self._sender(scope, send, record))
                except _ClientStalledError:
                    record.fields["dropped"] = "the client took nothing of its reply"
                except Exception:
                    record.status = 500
                    raise
                finally:
                    record.seconds = loop.time() - began
        finally:
            CURRENT.reset(token)
            logger.info("%s %s %s", record.method, record.path, record.status, extra={"record": record})

    def _sender(self, scope: Scope, send: Send, record: RequestRecord) -> Send:
        """`send` with the request's id in the headers and a time limit for each message."""
        drop: Callable[[], None] | None = scope.get(DROP_CONNECTION)

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = record.request_id
            try:
                async with asyncio.timeout(self._send_timeout):
                    await send(message)
            except TimeoutError:
                # Here, because what streams the reply takes the error for a client that has left.
                record.fields["dropped"] = "the client took nothing of its reply"
                if drop is not None:
                    drop()
                raise _ClientStalledError from None

        return sender
