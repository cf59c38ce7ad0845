"""Two server processes, as behind nginx, that keep to one adapter store."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.server.engines.adapter_requests import ask, load
from tests.server_process import ADMIN_KEY, serving, tiny_folders


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return tiny_folders(tmp_path_factory.mktemp("tiny"))


def test_a_change_at_one_server_holds_at_the_other_before_its_reply(
    folders: dict[str, Path], tmp_path: Path
) -> None:
    settings: dict[str, Any] = {
        "model": {"bytes": str(folders["bytes"])},
        "adapters_dir": [str(folders["steer"].parent)],
        "adapter_store": str(tmp_path / "adapters.json"),
        "admin_key": ADMIN_KEY,
        "api_key": [],
    }
    with ExitStack() as stack:
        one, two = (stack.enter_context(serving(tmp_path / "log", **settings)) for _ in range(2))
        at_one, at_two = (stack.enter_context(server.client(ADMIN_KEY)) for server in (one, two))
        assert load(at_one, "tab", "steer")["replaced"] is None
        for path, changed, asked in [("lean", at_two, at_one), ("steer", at_one, at_two)]:
            version = load(changed, "tab", path, replace=True)["version"]
            replies = [ask(asked, "bytes:tab") for _ in range(3)]
            assert {given for _, given in replies} == {version}
            assert ask(changed, "bytes:tab") == replies[0]
        assert [card["id"] for card in at_two.get("/v1/models").json()["data"]] == ["bytes", "bytes:tab"]
        assert at_two.delete("/v1/adapters/tab").json()["deleted"] is True
        gone = at_one.post("/v1/completions", json={"model": "bytes:tab", "prompt": "x"})
        assert (gone.status_code, gone.json()["error"]["param"]) == (404, "model")
