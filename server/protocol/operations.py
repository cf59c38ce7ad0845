"""Replies about the server itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from server.protocol.objects import ReplyObject


class Status(ReplyObject):
    """`GET /health` and `GET /ready`."""

    status: Literal["alive", "ready"] = Field(
        description="the state that was asked about; any other is a 503"
    )


class Version(ReplyObject):
    """`GET /version`."""

    version: str = Field(description="the version of the package `trimtab`")
