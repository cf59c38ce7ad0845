"""What is known of one HTTP request for logs and traces: never its content, never a key."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_ID_HEADER = "x-request-id"
_FIT_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_from(given: str) -> str:
    """The client's own id where it is fit for headers and logs, else a new one."""
    return given if _FIT_ID.fullmatch(given) else uuid.uuid4().hex


@dataclass(slots=True)
class RequestRecord:
    """Filled while the request is served. Times are seconds."""

    request_id: str
    method: str
    path: str
    status: int | None = None
    seconds: float | None = None
    fields: dict[str, str | int | float] = field(default_factory=dict)

    def as_fields(self) -> dict[str, str | int | float]:
        """The record, flat, without what is unknown."""
        always: dict[str, str | int | float | None] = {
            "request_id": self.request_id,
            "method": self.method,
            "path": self.path,
            "status": self.status,
            "seconds": None if self.seconds is None else round(self.seconds, 6),
        }
        return {name: value for name, value in always.items() if value is not None} | self.fields


RECORD = "trimtab.record"
"""The key of the record in a request's ASGI scope."""

CURRENT: ContextVar[RequestRecord | None] = ContextVar("trimtab_request", default=None)
"""The record of the request that the running task serves."""
