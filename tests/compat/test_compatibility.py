"""Every feature in `docs/compatibility.md` does what the page says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from server.app import build_app
from server.config import load_config
from tests.compat.feature import Feature
from tests.compat.page import PAGE, TABLE, page
from tests.server.fakes import FakeEngine
from tests.server.routes.test_chat_fields import Reader

FEATURES = [feature for features in TABLE.values() for feature in features]


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[TestClient, FakeEngine]]:
    engine = FakeEngine(max_model_len=4096)
    engine.base.tokenizer = Reader()
    config = load_config(reasoning_parser="think")
    with TestClient(build_app(config, engines={"base": cast(Any, engine)})) as client:
        yield client, engine


@pytest.mark.parametrize("feature", FEATURES, ids=[feature.name for feature in FEATURES])
def test_the_page_tells_the_truth(served: tuple[TestClient, FakeEngine], feature: Feature) -> None:
    feature.check(*served)


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make docs`"
    names = [feature.name for feature in FEATURES]
    assert len(set(names)) == len(names)
