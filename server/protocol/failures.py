"""The body of every error, as the OpenAPI document describes it; `ApiError.body` makes it."""

from __future__ import annotations

from pydantic import Field

from server.protocol.objects import ReplyObject


class Failure(ReplyObject):
    """An error."""

    message: str = Field(description="text for people; names the field at fault and its limit")
    type: str = Field(description="the kind of error, for programs")
    param: str | None = Field(description="the request's field at fault; null if there is none")
    code: str = Field(description="the HTTP status")


class ErrorReply(ReplyObject):
    """The reply of every status from 400 on, and the last event of a stream that fails."""

    error: Failure = Field(description="the error")
