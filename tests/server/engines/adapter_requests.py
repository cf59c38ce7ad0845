"""What the tests of adapter changes send to a server."""

from __future__ import annotations

import json
import threading
from typing import Any

import httpx

from tests.server_thread import ServerThread

PROMPT = "The ferry left the harbour"


def loaded(client: httpx.Client) -> list[dict[str, Any]]:
    cards: list[dict[str, Any]] = client.get("/v1/adapters").json()["data"]
    return cards


def load(client: httpx.Client, name: str, path: str, **fields: Any) -> dict[str, Any]:
    reply = client.post("/v1/adapters", json={"name": name, "path": path, **fields})
    assert reply.status_code == 200, reply.text
    body: dict[str, Any] = reply.json()
    return body


def ask(client: httpx.Client, model: str, tokens: int = 12) -> tuple[str, str | None]:
    """The greedy text, and the version that steered it."""
    body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    reply = client.post("/v1/completions", json=body)
    assert reply.status_code == 200, reply.text
    steering = reply.json()["steering"]
    return reply.json()["choices"][0]["text"], steering[0]["version"] if steering else None


def alone(client: httpx.Client, tokens: int = 12) -> dict[str, str]:
    """The text that `bytes` generates with each of the two adapters, by the adapter's version."""
    said = {}
    for path in ("steer", "lean"):
        version = load(client, f"alone-{path}", path)["version"]
        said[version], _ = ask(client, f"bytes:alone-{path}", tokens)
        client.delete(f"/v1/adapters/alone-{path}")
    assert len(set(said.values())) == 2
    return said


class Stream:
    """A long steered stream, read in a thread of its own; constructed once its first event has arrived."""

    def __init__(self, server: ServerThread, model: str, tokens: int) -> None:
        self._begun = threading.Event()
        self.text = ""
        self.error: str | None = None
        body = {"model": model, "prompt": PROMPT, "max_tokens": tokens, "temperature": 0}
        self._thread = threading.Thread(
            target=self._read, args=(server.url, {**body, "ignore_eos": True, "stream": True})
        )
        self._thread.start()
        assert self._begun.wait(20)

    def _read(self, url: str, body: dict[str, Any]) -> None:
        with (
            httpx.Client(base_url=url, timeout=60) as client,
            client.stream("POST", "/v1/completions", json=body) as reply,
        ):
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    self.text += json.loads(line[6:])["choices"][0]["text"]
                    self._begun.set()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def join(self) -> str:
        self._thread.join(60)
        assert not self.running
        return self.text
