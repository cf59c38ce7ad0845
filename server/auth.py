"""Checks API keys and the admin key for changing adapters, and tells clients apart."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
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
        raise ApiError(401, "A valid API key is needed: `Authorization: Bearer KEY` or `X-Api-Key: KEY`.")


async def require_admin(request: Request) -> None:
    """Raises a 403 unless the request bears the admin key, or where the server has none."""
    admin_key = service_of(request).config.admin_key
    if admin_key is None:
        raise ApiError(403, "The server was started without --admin-key, so its adapters cannot be changed.")
    if not _bears(request, (admin_key,)):
        raise ApiError(403, "Changing adapters needs the admin key: `Authorization: Bearer KEY`.")


def client_of(request: Request) -> str:
    """Identifies the client whose share of the server a request uses: by its key, or by its address where there are no
    keys.

    Of an IPv6 address, the first 64 bits count: one customer usually has all addresses that begin with them.
    """
    if service_of(request).config.api_key:
        return _digest(_offered_key(request)).hex()
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return host if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))


def _offered_key(request: Request) -> str:
    """The key of a request: a bearer's, or without one that of Anthropic's clients; "" for none."""
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    if scheme:
        return key.strip() if scheme.lower() == "bearer" else ""
    return request.headers.get("x-api-key", "").strip()


def _bears(request: Request, keys: Iterable[str]) -> bool:
    offered = _digest(_offered_key(request))
    # The time taken must not depend on the keys: digests have one length, and every one is compared in constant time.
    matches = [hmac.compare_digest(offered, _digest(key)) for key in keys]
    return any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "replace")).digest()
