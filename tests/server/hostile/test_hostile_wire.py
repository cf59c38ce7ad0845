"""Faults below the JSON: lengths, headers, keys, paths, methods, slow clients and broken connections."""

from __future__ import annotations

import json
import socket
import time
from typing import Any

import pytest

from tests.server.hostile.attack import COMPLETION, COMPLETIONS, Attack
from tests.server.hostile.raw_http import GOOD, connection, head, status, told
from tests.server_process import API_KEY, ServerProcess


def test_a_body_that_breaks_off(server: ServerProcess, attack: Attack) -> None:
    for sent in (0, 1, len(GOOD) - 1):
        with connection(server) as opened:
            opened.sendall(head(len(GOOD)) + GOOD[:sent])
            opened.shutdown(socket.SHUT_WR)
            assert status(told(opened)) in (0, 400, 408, 499)
        attack.canary()


def test_a_slow_body_is_given_up(server: ServerProcess, attack: Attack) -> None:
    with connection(server) as opened:
        opened.sendall(head(len(GOOD)))
        began = time.monotonic()
        opened.settimeout(0.05)
        said = b""
        for byte in GOOD:
            # A byte every 0.1 seconds keeps the connection active, and the body still takes too long.
            try:
                opened.sendall(bytes((byte,)))
                said += opened.recv(65536)
            except TimeoutError:
                time.sleep(0.1)
            except (ConnectionResetError, BrokenPipeError):
                break
            if said:
                break
        assert status(said) == 408
        assert time.monotonic() - began < 10
        attack.canary()


def test_many_slow_bodies_do_not_delay_others(server: ServerProcess, attack: Attack) -> None:
    opened = [socket.create_connection(server.address, timeout=15) for _ in range(60)]
    for each in opened:
        each.sendall(head(1_000_000) + b'{"model": "bytes", ')
    attack.canary()
    assert [status(told(each)) for each in opened] == [408] * len(opened)
    for each in opened:
        each.close()
    attack.canary()


@pytest.mark.parametrize(
    "lines",
    [
        [b"content-length: -1"],
        [b"content-length: 1", b"content-length: 2"],
        [b"content-length: 9999999999999999999999999999"],
        [b"content-length: a"],
        [b"content-length: 5", b"transfer-encoding: chunked"],
        [b"transfer-encoding: chunked, chunked"],
        [b"transfer-encoding: gzip"],
        [b"transfer-encoding: chunked"],
        [b"expect: 200-maybe"],
        [b"bad header"],
        [b": empty"],
        [b"a: b\x00c"],
        [b"x" * 100_000 + b": 1"],
        [b"a: " + b"x" * 100_000],
    ],
    ids=lambda lines: repr(lines)[:40],
)
def test_broken_heads(server: ServerProcess, attack: Attack, lines: list[bytes]) -> None:
    with connection(server) as opened:
        opened.sendall(head(None, *lines) + GOOD)
        opened.shutdown(socket.SHUT_WR)
        assert status(told(opened)) in (0, 200, 400, 408, 413, 415, 431, 501)
    attack.canary()


def test_three_hundred_headers(server: ServerProcess, attack: Attack) -> None:
    with connection(server) as opened:
        opened.sendall(head(len(GOOD), *(f"x-{i}: {i}".encode() for i in range(300))) + GOOD)
        assert status(told(opened)) in (200, 431)
    with connection(server) as opened:
        opened.sendall(head(len(GOOD), *(f"x-{i}: {'y' * 1000}".encode() for i in range(300))) + GOOD)
        assert status(told(opened)) in (0, 400, 431)
    attack.canary()


@pytest.mark.parametrize(
    "line", [b"GET", b"GET /health", b"GET / HTTP/9.9", b"\x16\x03\x01\x02\x00", b"PRI * HTTP/2.0", b""]
)
def test_a_request_that_is_not_http(server: ServerProcess, attack: Attack, line: bytes) -> None:
    with connection(server) as opened:
        opened.sendall(line + b"\r\n\r\n")
        opened.shutdown(socket.SHUT_WR)
        assert status(told(opened)) in (0, 400, 404, 505)
    attack.canary()


@pytest.mark.parametrize(
    "request_id",
    [
        *(
            b"a\rx-evil: 1",
            b"a\nx-evil: 1",
            b"a\r\n x-evil: 1",
            b"%0d%0ax-evil: 1",
            b"\xc4\x8dx-evil: 1",
            b"a\tb",
            b"",
        ),
        *(b"x" * 10_000, b'"><script>', b"a b", b"\x1b[31m", b"\xff\xfe", b"../../etc", b"{}"),
    ],
    ids=lambda request_id: repr(request_id)[:24],
)
def test_line_ends_in_ids_make_no_header(server: ServerProcess, attack: Attack, request_id: bytes) -> None:
    with connection(server) as opened:
        opened.sendall(head(len(GOOD), b"x-request-id: " + request_id) + GOOD)
        said = told(opened)
    assert status(said) in (200, 400)
    header = said.partition(b"\r\n\r\n")[0].lower()
    assert b"\nx-evil" not in header and b"\rx-evil" not in header
    given = header.partition(b"x-request-id: ")[2].partition(b"\r\n")[0]
    assert len(given) <= 200
    assert all(33 <= byte < 127 for byte in given)
    attack.canary()


@pytest.mark.parametrize(
    "name",
    ["a%0d%0ax-evil:%201", "%00", "..%2f..%2fetc%2fpasswd", "x" * 20_000, "%ff", "%", "bytes%3Asteer%0a"],
)
@pytest.mark.parametrize(
    "path", ["/v1/models/{}", "/v1/maps/{}/steer", "/v1/maps/bytes/{}", "/{}", "/tokenizer_info?model={}"]
)
def test_names_in_paths(attack: Attack, path: str, name: str) -> None:
    reply = attack.send(path.format(name), method="GET", content=b"")
    assert reply.status_code in (400, 404)
    assert "x-evil" not in reply.headers


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "FOO"])
def test_other_methods(server: ServerProcess, attack: Attack, method: str) -> None:
    with server.client() as client:
        reply = client.request(method, COMPLETIONS)
    assert reply.status_code == 405
    assert reply.headers["allow"] == "POST"
    attack.canary()


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer wrong",
        f"Basic {API_KEY}",
        API_KEY,
        f"Bearer {API_KEY}x",
        "Bearer é",
        "x" * 10_000,
    ],
    ids=lambda text: text[:20],
)
def test_wrong_keys(server: ServerProcess, attack: Attack, authorization: str) -> None:
    with server.client(key=None) as client:
        for method, path in (("POST", COMPLETIONS), ("GET", "/v1/models"), ("GET", "/metrics")):
            sent: Any = authorization.encode("utf-8")
            reply = client.request(method, path, headers=[(b"authorization", sent)])
            assert (reply.status_code, reply.json()["error"]["type"]) == (401, "authentication_error")
            assert API_KEY not in reply.text
        assert client.get("/health").status_code == 200
    attack.canary()


def test_pipelined_requests_are_answered_in_turn(server: ServerProcess, attack: Attack) -> None:
    bad = b'{"model": "nobody"}'
    with connection(server) as opened:
        opened.sendall(
            (head(len(bad)) + bad) * 20 + head(None, b"connection: close", path="/health", method="GET")
        )
        said = b""
        while part := opened.recv(65536):
            said += part
    assert said.count(b"HTTP/1.1 400") == 20
    assert b'"alive"' in said
    attack.canary()


def test_clients_that_disconnect_at_once_leave_nothing_running(server: ServerProcess, attack: Attack) -> None:
    body = json.dumps({**COMPLETION, "max_tokens": 200, "n": 4, "stream": True}).encode()
    for _ in range(30):
        with connection(server) as opened:
            opened.sendall(head(len(body)) + body)
    # Until the server notices the disconnects, they may fill its queue.
    deadline = time.monotonic() + 20
    with server.client() as client:
        while client.post(COMPLETIONS, json=COMPLETION).status_code == 429:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    attack.canary()
