"""One connection of a client: uvicorn's h11 protocol, with time limits for requests to arrive and a stricter parser."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from server.errors import ApiError
from server.http_server.connection_limit import ConnectionLimit
from server.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True)
class ConnectionRules:
    """The rules of all connections.

    `head_seconds`: the time for a request's head to arrive. `idle_seconds`: the time between two requests.
    """

    limit: ConnectionLimit
    head_seconds: float
    idle_seconds: float
    metrics: Metrics


class Connection(H11Protocol):
    """Answers the requests of one connection, and closes it where a rule is broken."""

    def __init__(self, *, rules: ConnectionRules, **options: Any) -> None:
        super().__init__(**options)
        self.conn = _StrictParser(h11.SERVER, self.conn._max_incomplete_event_size)
        self.timeout_keep_alive = cast(Any, rules.idle_seconds)
        self._rules = rules
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits the connection, or refuses it with a 503."""
        super().connection_made(transport)
        if self._rules.limit.admit(self):
            self._await_request()
        else:
            self._refuse(503, "The server takes no more connections now; try again later.")

    def connection_lost(self, exc: Exception | None) -> None:
        """Gives up the connection's place."""
        self._rules.limit.forget(self)
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses what has arrived. The time for a request's head starts with its first byte, and no byte extends it."""
        super().data_received(data)
        if self._has_request:
            self._stop_waiting()
            self._rules.limit.busy(self)
        else:
            self._await_request()

    def on_response_complete(self) -> None:
        """Goes on to the next request, if it has arrived already."""
        super().on_response_complete()
        if not self._has_request:
            self._rules.limit.idle(self)

    def send_400_response(self, msg: str) -> None:
        """Refuses what is not HTTP, and closes the connection: the next request's beginning is unknown."""
        parser = cast(_StrictParser, self.conn)
        self._refuse(400, parser.objection or "The request is not valid HTTP.")

    def close_idle(self) -> None:
        """Closes a connection that has no request."""
        self.transport.close()

    @property
    def _has_request(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _should_upgrade(self) -> bool:
        # uvicorn logs two warnings for a request that asks for an upgrade.
        return False

    def _await_request(self) -> None:
        if self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(self._rules.head_seconds, self._give_up)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        """Closes the connection where no request's head has arrived in time, with a 408 where it had begun."""
        self._head_timer = None
        if self._has_request or self.transport.is_closing():
            return
        if self.conn.trailing_data[0] or self.conn.their_state is not h11.IDLE:
            self._refuse(408, f"The request did not arrive within {self._rules.head_seconds:g} seconds.")
        else:
            self.transport.close()

    def _refuse(self, status: int, message: str) -> None:
        """Sends an error, where no reply has begun, and closes the connection."""
        if self._has_request:
            # The app must not reply after this.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._rules.metrics.count_error(status)
            error = ApiError(status, message)
            content = json.dumps(error.body()).encode()
            headers = {
                **error.headers(),
                "Content-Type": "application/json",
                "Content-Length": str(len(content)),
                "Connection": "close",
            }
            head = h11.Response(
                status_code=status, headers=list(headers.items()), reason=HTTPStatus(status).phrase
            )
            for event in (head, h11.Data(data=content), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _StrictParser(h11.Connection):
    """Refuses requests whose length a proxy in front may understand in another way (RFC 9112, section 6.1).

    Of a body with two lengths, a proxy may take the one and this server the other; the rest of the body would then be
    the next request, which the proxy has never seen. `objection`: the reason why the last request was refused.
    """

    objection: str | None = None

    def next_event(self) -> Any:
        """The next event; raises RemoteProtocolError."""
        event = super().next_event()
        if isinstance(event, h11.Request):
            names = {bytes(name) for name, _ in event.headers}
            if b"transfer-encoding" in names:
                if b"content-length" in names:
                    self._object("A request must not have both Content-Length and Transfer-Encoding.")
                if event.http_version < b"1.1":
                    self._object("HTTP/1.0 has no Transfer-Encoding.")
        return event

    def _object(self, message: str) -> None:
        self.objection = message
        raise h11.RemoteProtocolError(message)
