"""The keys that each route needs, and the loads that are refused to an administrator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

MakeClient = Callable[..., TestClient]

# The statuses in the cases below are in this order.
KEYS = {"nobody": None, "wrong": "guess", "client": "client", "admin": "boss"}


@pytest.mark.parametrize(
    ("settings", "method", "path", "statuses"),
    [
        ({"api_key": ["client"], "admin_key": "boss"}, "GET", "/v1/adapters", (401, 401, 200, 200)),
        ({"api_key": ["client"], "admin_key": "boss"}, "DELETE", "/v1/adapters/x", (401, 401, 403, 404)),
        ({"api_key": ["client"], "admin_key": "boss"}, "POST", "/v1/adapters", (401, 401, 403, 400)),
        ({"admin_key": "boss"}, "GET", "/v1/adapters", (200, 200, 200, 200)),
        ({"admin_key": "boss"}, "DELETE", "/v1/adapters/x", (403, 403, 403, 404)),
        ({"api_key": ["client"]}, "DELETE", "/v1/adapters/forget", (401, 401, 403, 401)),
        ({}, "DELETE", "/v1/adapters/forget", (403, 403, 403, 403)),
        ({}, "POST", "/v1/adapters", (403, 403, 403, 403)),
        ({"api_key": ["client"], "admin_key": "boss"}, "GET", "/health", (200, 200, 200, 200)),
        ({"api_key": ["client"], "admin_key": "boss"}, "GET", "/ready", (200, 200, 200, 200)),
        ({"api_key": ["client"], "admin_key": "boss"}, "GET", "/version", (200, 200, 200, 200)),
        ({"api_key": ["client"], "admin_key": "boss"}, "GET", "/metrics", (401, 401, 200, 200)),
    ],
)
def test_the_reply_to_each_key(
    make_client: MakeClient, settings: dict[str, Any], method: str, path: str, statuses: tuple[int, ...]
) -> None:
    client = make_client(**settings)
    got = [
        client.request(
            method, path, headers={} if key is None else {"authorization": f"Bearer {key}"}
        ).status_code
        for key in KEYS.values()
    ]
    assert tuple(got) == statuses
    assert client.get("/v1/adapters", headers={"authorization": "Bearer client"}).json()["data"]


def test_without_directories_nothing_is_loaded(make_client: MakeClient) -> None:
    client = make_client(admin_key="boss")
    reply = client.post(
        "/v1/adapters", json={"name": "x", "path": "x"}, headers={"authorization": "Bearer boss"}
    )
    assert (reply.status_code, reply.json()["error"]["type"]) == (403, "permission_error")
    assert "--adapters-dir" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"path": "x"}, "name"),
        ({"name": "x"}, "path"),
        ({"name": "none", "path": "x"}, "name"),
        ({"name": "several", "path": "x"}, "name"),
        ({"name": "a:b", "path": "x"}, "name"),
        ({"name": "a/b", "path": "x"}, "name"),
        ({"name": "x" * 65, "path": "x"}, "name"),
        ({"name": "x", "path": ""}, "path"),
        ({"name": "x", "path": "x" * 5000}, "path"),
        ({"name": "x", "path": "x", "replace": "yes"}, "replace"),
        ({"name": "x", "path": "x", "trust_remote_code": True}, "trust_remote_code"),
        ({"name": "x", "path": "x", "chat_template": "{{ 1 }}"}, "chat_template"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bad_loads_are_refused(
    make_client: MakeClient, tmp_path: Path, body: dict[str, Any], param: str
) -> None:
    client = make_client(admin_key="boss", adapters_dir=[str(tmp_path)])
    reply = client.post("/v1/adapters", json=body, headers={"authorization": "Bearer boss"})
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
