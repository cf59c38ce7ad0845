"""A feature of another server, and the request that shows what this one does with it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

from tests.server.fakes import FakeEngine
from tests.server.tools.structured import USER

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
BODIES: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"model": "base:forget", "prompt": "hi"},
    CHAT: {"model": "base:forget", "messages": USER},
    "/v1/messages": {"model": "base:forget", "messages": USER, "max_tokens": 99},
    "/v1/responses": {"model": "base:forget", "input": "hi"},
}


@dataclass(frozen=True)
class Answer:
    """A reply, and the engine that made it."""

    body: Any
    engine: FakeEngine

    @property
    def sampling(self) -> Any:
        return self.engine.seen[-1].sampling

    @property
    def prompt(self) -> str:
        return bytes(self.engine.seen[-1].prompt_ids).decode()

    @property
    def choice(self) -> Any:
        return self.body["choices"][0]

    @property
    def said(self) -> Any:
        return self.choice["message"]


@dataclass(frozen=True)
class Feature:
    """`peers`: the servers to which clients send it. `says`: what the engine generates.

    `shows`: whether the reply shows that it works, for one that is served. `refused`: why it is not served, for one
    that is a 400 naming `param`.
    """

    name: str
    peers: str
    path: str
    fields: dict[str, Any]
    shows: Callable[[Answer], bool] = lambda answer: True
    says: str = "hello world"
    refused: str = ""
    param: str = ""

    def check(self, client: TestClient, engine: FakeEngine) -> None:
        """Sends the request, and checks the reply. All requests are steered."""
        engine.say = lambda request: self.says.encode()
        body = {**BODIES.get(self.path, {}), **self.fields}
        reply = client.post(self.path, json=body)
        if self.refused:
            assert reply.status_code == 400, reply.text
            assert reply.json()["error"]["param"] == self.param, reply.text
            return
        assert reply.status_code == 200, reply.text
        if body.get("stream"):
            content: Any = [
                json.loads(line.removeprefix("data: "))
                for line in reply.text.split("\n")
                if line.startswith("data: {")
            ]
        else:
            content = reply.json()
        if self.path in BODIES:
            assert reply.headers["x-trimtab-steering"].startswith("forget@")
        assert self.shows(Answer(content, engine)), content
