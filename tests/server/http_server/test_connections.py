"""Limits on connections: how many, how long their requests may take to arrive, and which requests end them."""

from __future__ import annotations

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

from tests.server.fakes import FakeEngine
from tests.server_thread import ServerThread, serve_in_thread, wait_for

GET = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
BODY = json.dumps({"model": "base", "prompt": "hi"}).encode()


def post(*lines: bytes, version: bytes = b"1.1") -> bytes:
    first = b"POST /v1/completions HTTP/" + version
    return b"\r\n".join([first, b"host: x", b"content-type: application/json", *lines, b"", b""])


WITH_LENGTH = post(b"content-length: %d" % len(BODY)) + BODY

Serve = Callable[..., ServerThread]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def serve(engine: FakeEngine) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(serve_in_thread({"base": cast(Any, engine)}, **settings))


@pytest.fixture
def connect() -> Iterator[Callable[[ServerThread], socket.socket]]:
    with ExitStack() as stack:
        yield lambda server: stack.enter_context(socket.create_connection(server.address, timeout=10))


Connect = Callable[[ServerThread], socket.socket]


def reply(opened: socket.socket) -> tuple[int, dict[str, str], bytes]:
    """The status, headers and body of one reply of known length; status 0 where the connection has been closed."""
    said = b""
    while b"\r\n\r\n" not in said:
        part = opened.recv(65536)
        if not part:
            return 0, {}, said
        said += part
    head, _, body = said.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    while len(body) < int(headers["content-length"]):
        body += opened.recv(65536)
    return int(first.split()[1]), headers, body


def is_closed(opened: socket.socket) -> bool:
    """Whether the server has closed the connection, after at most ten seconds."""
    try:
        return opened.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize(
    "request_bytes",
    [
        post(b"content-length: 5", b"transfer-encoding: chunked") + b"0\r\n\r\n" + GET,
        post(b"transfer-encoding: chunked", b"content-length: %d" % len(BODY)) + BODY,
        post(b"transfer-encoding: chunked", version=b"1.0") + b"0\r\n\r\n" + GET,
        post(b"content-length: 5", b"content-length: 6") + b"hello" + GET,
    ],
    ids=["length first", "encoding first", "HTTP/1.0", "two lengths"],
)
def test_a_body_of_two_lengths_is_a_400_and_ends_its_connection(
    serve: Serve, connect: Connect, engine: FakeEngine, request_bytes: bytes
) -> None:
    opened = connect(serve())
    opened.sendall(request_bytes)
    status, headers, body = reply(opened)
    assert (status, headers["connection"]) == (400, "close")
    assert json.loads(body)["error"]["code"] == "400"
    assert is_closed(opened)
    assert engine.seen == []


def test_a_broken_body_ends_its_connection_and_the_request(serve: Serve, connect: Connect) -> None:
    server = serve()
    opened = connect(server)
    opened.sendall(post(b"transfer-encoding: chunked") + b"not a chunk\r\n")
    assert reply(opened)[0] == 400
    assert is_closed(opened)
    wait_for(lambda: server.connections() == 0)


def test_a_fault_says_that_it_closes_its_connection(
    serve: Serve, connect: Connect, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> list[int]:
        raise ZeroDivisionError

    monkeypatch.setattr(engine.base.tokenizer, "encode", fail)
    opened = connect(serve())
    opened.sendall(WITH_LENGTH)
    status, headers, _ = reply(opened)
    assert (status, headers["connection"]) == (500, "close")
    assert is_closed(opened)


def test_a_connection_without_a_request_is_closed(serve: Serve, connect: Connect) -> None:
    opened = connect(serve(head_timeout=0.3))
    began = time.monotonic()
    assert reply(opened)[0] == 0
    assert 0.2 < time.monotonic() - began < 5


@pytest.mark.parametrize("first", [b"", GET], ids=["first request", "second request"])
def test_a_head_that_drips_is_given_up(serve: Serve, connect: Connect, first: bytes) -> None:
    opened = connect(serve(head_timeout=0.4))
    if first:
        opened.sendall(first)
        assert reply(opened)[0] == 200
    began = time.monotonic()
    opened.settimeout(0.05)
    status = 0
    for byte in GET * 20:
        try:
            opened.sendall(bytes((byte,)))
            status, _, _ = reply(opened)
            break
        except TimeoutError:
            continue
    assert status == 408
    assert time.monotonic() - began < 5


def test_a_body_that_drips_after_its_reply_is_given_up(serve: Serve, connect: Connect) -> None:
    opened = connect(serve(head_timeout=0.4))
    # A route that does not exist is refused before its body is read.
    opened.sendall(b"POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n")
    assert reply(opened)[0] == 404
    for _ in range(250):
        try:
            opened.sendall(b"x")
        except (BrokenPipeError, ConnectionResetError):
            break
        time.sleep(0.02)
    else:
        pytest.fail("the connection was never closed")


def test_a_connection_is_kept_between_requests_and_closed_when_idle(serve: Serve, connect: Connect) -> None:
    opened = connect(serve(keep_alive_timeout=0.6, head_timeout=0.3))
    for _ in range(3):
        opened.sendall(GET)
        assert reply(opened)[0] == 200
        time.sleep(0.4)
    began = time.monotonic()
    assert is_closed(opened)
    assert time.monotonic() - began < 5


def test_a_slow_reply_is_not_cut_off(serve: Serve, connect: Connect, engine: FakeEngine) -> None:
    opened = connect(serve(head_timeout=0.2, keep_alive_timeout=0.2))
    engine.go.clear()
    opened.sendall(WITH_LENGTH)
    time.sleep(0.6)
    engine.go.set()
    assert reply(opened)[0] == 200


def test_at_the_limit_the_longest_idle_connection_gives_way(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(max_connections=3)
    caplog.set_level(logging.WARNING)
    idle = []
    for _ in range(20):
        idle.append(connect(server))
        time.sleep(0.01)
    opened = connect(server)
    opened.sendall(GET)
    assert reply(opened)[0] == 200
    assert all(is_closed(each) for each in idle[:18])
    wait_for(lambda: server.connections() <= 3)
    assert len([record for record in caplog.records if "at their limit of 3" in record.message]) == 1


def test_where_every_connection_has_a_request_a_new_one_is_a_503(
    serve: Serve, connect: Connect, engine: FakeEngine
) -> None:
    server = serve(max_connections=2)
    engine.go.clear()
    busy = [connect(server) for _ in range(2)]
    for each in busy:
        each.sendall(WITH_LENGTH)
    wait_for(lambda: len(engine.seen) == 2)
    refused = connect(server)
    status, headers, body = reply(refused)
    assert (status, headers["connection"]) == (503, "close")
    assert "retry-after" in headers and json.loads(body)["error"]["type"] == "unavailable_error"
    assert is_closed(refused)
    engine.go.set()
    assert [reply(each)[0] for each in busy] == [200, 200]
    opened = connect(server)
    opened.sendall(GET)
    assert reply(opened)[0] == 200


def test_more_connections_than_descriptors_are_not_promised(caplog: pytest.LogCaptureFixture) -> None:
    from server.http_server.connection_limit import most_connections

    possible = most_connections(None)
    assert most_connections(1) == 1
    assert most_connections(10**9) <= possible
    assert "file descriptors allow" in caplog.text
