"""The one shape of an error, for the documents; `errors.py` writes it."""

from __future__ import annotations

from pydantic import Field

from server.protocol.common import Reply


class Failure(Reply):
    """What went wrong."""

    message: str = Field(description="for people; names the field and its limit where one is at fault")
    type: str = Field(description="the kind of error, for programs")
    param: str | None = Field(description="the request's field at fault, where there is one")
    code: int = Field(description="the HTTP status")


class ErrorReply(Reply):
    """Every reply whose status is 400 or above, and the last event of a stream that fails."""

    error: Failure = Field(description="what went wrong")
