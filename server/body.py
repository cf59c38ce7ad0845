"""Reads a request's JSON body: its type, its size and its fields are checked before anything else sees it."""

from __future__ import annotations

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from server.errors import ApiError, echo, from_validation
from server.streaming import ClientGoneError

Body = TypeVar("Body", bound=BaseModel)


async def read_body(request: Request, model: type[Body], limit: int) -> Body:
    """The body as `model`.

    Raises `ApiError`: 415 for another content type than JSON, 413 beyond `limit` bytes, 400 for anything that is not
    exactly what `model` describes. Raises `ClientGoneError` where the client leaves before its end.
    """
    content_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if content_type != "application/json" and not content_type.endswith("+json"):
        raise ApiError(415, f"The body must be application/json, not {echo(content_type)}.")
    content = bytearray()
    try:
        async for chunk in request.stream():
            content += chunk
            if len(content) > limit:
                raise ApiError(413, f"The body is longer than the limit of {limit} bytes.")
    except ClientDisconnect:
        raise ClientGoneError from None
    try:
        return model.model_validate_json(bytes(content))
    except ValidationError as error:
        raise from_validation(error) from None
