"""API keys."""

from __future__ import annotations

import hmac

from fastapi import Request

from server.errors import ApiError
from server.routes.common import service_of


async def require_key(request: Request) -> None:
    """Raises a 401 unless the request bears one of the server's keys, or the server has none."""
    keys = service_of(request).config.api_key
    if not keys:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    offered = given.strip().encode("utf-8", "replace")
    # Every key is compared, each in constant time, so that the time taken tells nothing.
    matches = [hmac.compare_digest(offered, key.encode()) for key in keys]
    if scheme.lower() != "bearer" or not any(matches):
        raise ApiError(401, "A valid API key is needed: `Authorization: Bearer KEY`.")
