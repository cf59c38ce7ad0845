"""Reads a request's JSON body, and checks its type, size and fields."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from server.config import Config
from server.errors import ApiError, ClientGoneError, bad_request, echo, from_validation
from server.intake.json_depth import MAX_DEPTH, is_too_deep

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body], config: Config) -> Body:
    """The body as `model`.

    Raises `ApiError`: 415 for a compressed body or a content type other than JSON, 413 beyond `max_body_bytes`, 408
    beyond `body_timeout`, 400 for a body that is nested too deeply or does not fit `model`. Raises `ClientGoneError`
    where the client leaves before the body's end.
    """
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise ApiError(415, f"The body must be application/json, not {echo(content_type)}.")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise ApiError(415, f"The body must not be compressed; its content-encoding is {echo(encoding)}.")
    content = await _read(request, int(config.max_body_bytes), config.body_timeout)
    if is_too_deep(content):
        raise bad_request(f"The body is nested more deeply than the limit of {MAX_DEPTH} levels.", None)
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        raise from_validation(error) from None


async def _read(request: Request, limit: int, seconds: float) -> bytes:
    """The body's bytes, at most `limit`, if they arrive within `seconds`."""
    too_long = ApiError(413, f"The body is longer than the limit of {limit} bytes.")
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > limit:
        raise too_long
    content = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                content += chunk
                if len(content) > limit:
                    raise too_long
    except ClientDisconnect:
        raise ClientGoneError from None
    except TimeoutError:
        raise ApiError(408, f"The body did not arrive within {seconds:g} seconds.") from None
    return bytes(content)
