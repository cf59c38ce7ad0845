"""HTTP requests as bytes on a socket, for faults that an HTTP client would not let through."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.server.hostile.attack import COMPLETION, COMPLETIONS
from tests.server_process import API_KEY, ServerProcess

GOOD = json.dumps(COMPLETION).encode()


@contextmanager
def connection(server: ServerProcess, seconds: float = 15) -> Iterator[socket.socket]:
    with socket.create_connection(server.address, timeout=seconds) as opened:
        yield opened


def head(length: int | None, *more: bytes, path: str = COMPLETIONS, method: str = "POST") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"host: localhost",
        f"authorization: Bearer {API_KEY}".encode(),
        b"content-type: application/json",
        *([] if length is None else [f"content-length: {length}".encode()]),
        *more,
    ]
    return b"\r\n".join([*lines, b"", b""])


def told(opened: socket.socket) -> bytes:
    """The bytes that the server sends, up to the end of its reply or of the connection."""
    said = b""
    try:
        while part := opened.recv(65536):
            said += part
            if b"\r\n\r\n" in said and b"transfer-encoding" not in said.lower():
                length = int(said.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                if len(said.partition(b"\r\n\r\n")[2]) >= length:
                    break
    except (ConnectionResetError, BrokenPipeError):
        pass
    return said


def status(said: bytes) -> int:
    return int(said.split(b" ", 2)[1]) if said else 0
