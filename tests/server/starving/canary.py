"""A request that must get the same answer before, while and after a server starves."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

_REQUEST = {
    "model": "pieces:steer",
    "prompt": "In winter the lake",
    "max_tokens": 5,
    "temperature": 0,
    "ignore_eos": True,
}


class Canary:
    """Sends the request; the first answer is the right one."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._right = self._ask()

    def check(self) -> None:
        """Checks the answer now."""
        assert self._ask() == self._right

    def _ask(self) -> str:
        reply = self._client.post("/v1/completions", json=_REQUEST)
        assert reply.status_code == 200, reply.text
        text: str = reply.json()["choices"][0]["text"]
        return text


@contextmanager
def soft_limit(kind: int, amount: int) -> Iterator[None]:
    """Changes a soft limit of this process, and of those that it starts meanwhile."""
    soft, hard = resource.getrlimit(kind)
    resource.setrlimit(kind, (amount, hard))
    try:
        yield
    finally:
        resource.setrlimit(kind, (soft, hard))
