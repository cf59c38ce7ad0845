"""Replies that are streamed as server-sent events.

Each event is one `data:` line, written by hand. The ready-made responses do not serve: they notice a disconnect only at
the next send, or end every stream as soon as the process is told to stop, which leaves no time to drain.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.replies.disconnects import wait_for_disconnect

DONE = "data: [DONE]\n\n"
"""The last event of a stream that has not failed."""


def event(content: str | Mapping[str, object]) -> str:
    """One event, from JSON text or an object."""
    text = content if isinstance(content, str) else json.dumps(content)
    return f"data: {text}\n\n"


class EventStream(Response):
    """A stream of events. `close` is called however it ends, even where it never begins."""

    media_type = "text/event-stream"

    def __init__(
        self, events: AsyncGenerator[str, None], *, headers: Mapping[str, str], close: Callable[[], None]
    ) -> None:
        # Proxies must pass events on at once: `x-accel-buffering` tells nginx so.
        super().__init__(headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the events until they end or the client disconnects."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(wait_for_disconnect(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        except OSError:
            # The HTTP server raises it when the client has left while we were sending.
            pass
        finally:
            leaving.cancel()
            sending.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._events.aclose()
            self._close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for text in self._events:
            await send({"type": "http.response.body", "body": text.encode(), "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
