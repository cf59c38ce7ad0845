"""The record of one HTTP request for logs and traces; it never holds content or keys."""

from __future__ import annotations

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass, field

REQUEST_ID_HEADER = "x-request-id"
_SAFE_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_from(given: str) -> str:
    """The id that the client gave if it is safe in headers and logs, else a new one."""
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


@dataclass(slots=True)
class RequestRecord:
    """The facts about a request, filled while it is served; `seconds` is its duration."""

    request_id: str
    method: str
    path: str
    status: int | None = None
    seconds: float | None = None
    fields: dict[str, str | int | float] = field(default_factory=dict)

    def as_fields(self) -> dict[str, str | int | float]:
        """The record as one flat dictionary, without the fields that are None."""
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
"""The record of the request that the current task serves."""
