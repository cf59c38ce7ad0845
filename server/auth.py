"""Checks API keys, and the admin key for changing adapters."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

from fastapi import Request

from server.errors import ApiError
from server.service import service_of


async def require_key(request: Request) -> None:
    """Raises a 401 unless the request bears one of the server's keys, or the server has none."""
    config = service_of(request).config
    if not config.api_key:
        return
    keys = config.api_key if config.admin_key is None else (*config.api_key, config.admin_key)
    if not _bears(request, keys):
        raise ApiError(401, "A valid API key is needed: `Authorization: Bearer KEY`.")


async def require_admin(request: Request) -> None:
    """Raises a 403 unless the request bears the admin key, or where the server has none."""
    admin_key = service_of(request).config.admin_key
    if admin_key is None:
        raise ApiError(403, "The server was started without --admin-key, so its adapters cannot be changed.")
    if not _bears(request, (admin_key,)):
        raise ApiError(403, "Changing adapters needs the admin key: `Authorization: Bearer KEY`.")


def _bears(request: Request, keys: Iterable[str]) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    offered = _digest(given.strip())
    # The time taken must not depend on the keys: digests have one length, and every one is compared in constant time.
    matches = [hmac.compare_digest(offered, _digest(key)) for key in keys]
    return scheme.lower() == "bearer" and any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
