"""The listening socket, also where no file descriptor is left for a connection."""

from __future__ import annotations

import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from server.http_server.listener import ACCEPTED_A_TURN, Listener


@pytest.fixture
def exhausted() -> list[bool]:
    return []


@pytest.fixture
def listener(exhausted: list[bool]) -> Iterator[Listener]:
    bound = socket.create_server(("127.0.0.1", 0))
    listener = Listener(bound.detach(), lambda: exhausted.append(True))
    listener.setblocking(False)
    with listener:
        yield listener


def test_a_few_connections_are_taken_in_a_turn(listener: Listener) -> None:
    with ExitStack() as stack:
        for _ in range(ACCEPTED_A_TURN + 1):
            stack.enter_context(socket.create_connection(listener.getsockname()))
        for _ in range(ACCEPTED_A_TURN):
            stack.enter_context(listener.accept()[0])
        with pytest.raises(BlockingIOError):
            listener.accept()
        stack.enter_context(listener.accept()[0])
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_without_descriptors_a_connection_is_closed_and_the_next_is_served(
    listener: Listener, exhausted: list[bool]
) -> None:
    with ExitStack() as stack:
        waiting = [
            stack.enter_context(socket.create_connection(listener.getsockname(), timeout=5)) for _ in range(3)
        ]
        free = os.dup(0)
        os.close(free)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Descriptors are given out from the lowest, so the next one would be `free`.
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            for _ in range(2):
                with pytest.raises(BlockingIOError):
                    listener.accept()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert exhausted == [True, True]
        assert [each.recv(1) for each in waiting[:2]] == [b"", b""]
        accepted = stack.enter_context(listener.accept()[0])
        accepted.sendall(b"x")
        assert waiting[2].recv(1) == b"x"
