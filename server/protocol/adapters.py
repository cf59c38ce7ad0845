"""`/v1/adapters`: the adapters that are loaded, and the requests that change them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from server.names import MAX_NAME, NAME_PATTERN, check_name
from server.protocol.objects import ReplyObject, RequestObject

AdapterName = Annotated[
    str,
    Field(max_length=MAX_NAME, json_schema_extra={"pattern": f"^{NAME_PATTERN}$"}),
    AfterValidator(check_name),
]


class LoadAdapterRequest(RequestObject):
    """`POST /v1/adapters`."""

    name: AdapterName
    """the name that requests will use"""
    path: str = Field(min_length=1, max_length=4096)
    """a folder inside one of the server's adapter directories: an absolute path, or one relative to a directory"""
    replace: bool | None = None
    """replace the adapter of this name, if there is one; running requests keep the version that they began with"""


class LoadLoraAdapterRequest(RequestObject):
    """`POST /v1/load_lora_adapter`."""

    lora_name: AdapterName
    """the name that requests will use"""
    lora_path: str = Field(min_length=1, max_length=4096)
    """a folder inside one of the server's adapter directories"""
    load_inplace: bool | None = None
    """replace the adapter of this name, if there is one"""
    base_model_name: str | None = Field(None, max_length=MAX_NAME)
    """accepted and ignored: an adapter steers every base"""


class UnloadLoraAdapterRequest(RequestObject):
    """`POST /v1/unload_lora_adapter`."""

    lora_name: str = Field(min_length=1, max_length=MAX_NAME)
    """the adapter's name"""
    lora_int_id: int | None = Field(None, ge=0, le=2**31)
    """accepted and ignored"""


class AdapterCard(ReplyObject):
    """One version of an adapter in memory."""

    name: str = Field(description="the name that requests use")
    object: Literal["adapter"] = "adapter"
    kind: str = Field(description="how the scores of its models become a shift: `delta` or `proxy`")
    version: str = Field(description="a digest of its files")
    alpha: float = Field(description="the shift's strength where a request gives none")
    bridge: str = Field(description="how the shift crosses vocabularies where a request does not say")
    bases: list[str] = Field(description="the bases that it can steer")
    readers: int = Field(description="unfinished sequences that it steers")
    status: Literal["loaded", "unloading"] = Field(
        description="`unloading`: replaced or removed; its memory is freed when the last of its readers ends"
    )


class AdapterList(ReplyObject):
    """`GET /v1/adapters`."""

    object: Literal["list"] = "list"
    data: list[AdapterCard] = Field(description="the loaded versions, then the unloading ones")


class LoadedAdapter(ReplyObject):
    """`POST /v1/adapters`."""

    name: str = Field(description="the name that requests use")
    object: Literal["adapter"] = "adapter"
    version: str = Field(description="a digest of its files")
    replaced: str | None = Field(description="the version that had this name before; null if there was none")


class UnloadedAdapter(ReplyObject):
    """`DELETE /v1/adapters/{name}`."""

    name: str = Field(description="the name that requests used")
    object: Literal["adapter"] = "adapter"
    deleted: Literal[True] = True
    readers: int = Field(
        description="unfinished sequences that it still steers after the wait; its memory is freed when they end"
    )
