"""Adapters: what is loaded, and the requests that change it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from server.names import MAX_NAME, NAME_PATTERN, check_name
from server.protocol.common import Reply, Wire


class LoadAdapterRequest(Wire):
    """`POST /v1/adapters`."""

    name: Annotated[
        str,
        Field(max_length=MAX_NAME, json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}),
        AfterValidator(check_name),
    ]
    """what requests will call it"""
    path: str = Field(min_length=1, max_length=4096)
    """a folder below one of the server's adapter directories, absolute or relative to one of them"""
    replace: bool | None = None
    """take a name that is in use; requests that run keep the version that they began with"""


class AdapterCard(Reply):
    """One version of an adapter that is in memory."""

    name: str = Field(description="what requests call it")
    object: Literal["adapter"] = "adapter"
    kind: str = Field(description="how its models' scores become a shift: `delta` or `proxy`")
    version: str = Field(description="a digest of its files")
    alpha: float = Field(description="the shift's strength where a request names none")
    bridge: str = Field(description="how its shift crosses vocabularies where a request names none")
    bases: list[str] = Field(description="the bases that it is attached to")
    readers: int = Field(description="unfinished sequences that it steers")
    status: Literal["loaded", "unloading"] = Field(
        description="`unloading`: replaced or removed; it goes when the last of its readers ends"
    )


class AdapterList(Reply):
    """`GET /v1/adapters`."""

    object: Literal["list"] = "list"
    data: list[AdapterCard] = Field(description="the loaded versions, then those that are unloading")


class LoadedAdapter(Reply):
    """`POST /v1/adapters`."""

    name: str = Field(description="what requests call it")
    object: Literal["adapter"] = "adapter"
    version: str = Field(description="a digest of its files")
    replaced: str | None = Field(description="the version that the name meant before")


class UnloadedAdapter(Reply):
    """`DELETE /v1/adapters/{name}`."""

    name: str = Field(description="what requests called it")
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True
    readers: int = Field(
        description="unfinished sequences that it still steers; their end frees its memory. Above 0 only where they "
        "outlast the wait for them"
    )
