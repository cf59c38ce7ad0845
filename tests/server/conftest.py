from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from server.app import build_app
from server.config import load_config
from tests.server.fakes import FakeEngine

MakeClient = Callable[..., TestClient]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def make_client(engine: FakeEngine) -> Iterator[MakeClient]:
    """Makes a client of an app around the fake engine, with the given settings."""
    with ExitStack() as stack:

        def make(**settings: Any) -> TestClient:
            app = build_app(load_config(**settings), engines={"base": cast(Any, engine)})
            return stack.enter_context(TestClient(app, raise_server_exceptions=False))

        yield make


@pytest.fixture
def client(make_client: MakeClient) -> TestClient:
    return make_client()
