"""Around every request: its id, its line in the log, its trace, and the end of clients that take nothing."""

from __future__ import annotations

import asyncio
import logging

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import ECHO_LIMIT
from server.service import Service
from server.telemetry.request_record import CURRENT, RECORD, REQUEST_ID_HEADER, RequestRecord, request_id_from
from server.telemetry.traces import Tracing

logger = logging.getLogger("server.access")


class _ClientStalledError(OSError):
    """The client takes nothing of its reply; an OSError, as where it has left."""


class RequestMiddleware:
    """The outermost layer of the app but for the one that answers for faults."""

    def __init__(self, app: ASGIApp, service: Service, tracing: Tracing) -> None:
        self._app = app
        self._service = service
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
        patience = self._service.config.send_timeout

        async def sender(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                MutableHeaders(scope=message)[REQUEST_ID_HEADER] = record.request_id
            try:
                async with asyncio.timeout(patience):
                    await send(message)
            except TimeoutError:
                self._service.drop_connection(scope)
                raise _ClientStalledError from None

        return sender
