"""Sends requests of a hostile client, checks their replies, and then sends a good request, the canary."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import httpx

from tests.server_process import ServerProcess

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
COMPLETION: dict[str, Any] = {"model": "bytes", "prompt": "The ferry", "max_tokens": 2}
CONVERSATION: dict[str, Any] = {
    "model": "bytes",
    "messages": [{"role": "user", "content": "The ferry"}],
    "max_tokens": 2,
}
BASICS = {COMPLETIONS: COMPLETION, CHAT: CONVERSATION}

LONGEST_ERROR = 2_000
LONGEST_REPLY = 2_000_000
SLOWEST = 20.0
_CANARY = {
    "model": "bytes:steer",
    "prompt": "In winter the lake",
    "max_tokens": 3,
    "temperature": 0,
    "ignore_eos": True,
}


class Bystander:
    """Repeats one long request; `disturbed` collects the replies that differ from the first."""

    def __init__(self, server: ServerProcess) -> None:
        self._server = server
        self.leave = threading.Event()
        self.rounds = 0
        self.disturbed: list[str] = []
        self.canary = ""

    def run(self) -> None:
        """Repeats the request until `leave` is set."""
        body = {**_CANARY, "model": "pieces:lean", "max_tokens": 40}
        # A busy machine may make it slow, but never wrong.
        with self._server.client(timeout=120) as client:
            expected = client.post(COMPLETIONS, json=body).text.partition('"choices"')[2]
            while not self.leave.wait(0.3):
                try:
                    reply = client.post(COMPLETIONS, json=body)
                except httpx.HTTPError as error:
                    self.disturbed.append(repr(error))
                    return
                # The attacks may fill the queue, so a 429 is no fault.
                if reply.status_code != 429 and reply.text.partition('"choices"')[2] != expected:
                    self.disturbed.append(reply.text)
                self.rounds += 1


class Attack:
    """The client's side of a hostile request. Every method ends with the canary."""

    def __init__(self, client: httpx.Client, bystander: Bystander) -> None:
        self._client = client
        self._bystander = bystander

    def send(
        self, path: str, body: Any = None, *, content: bytes | str | None = None, **options: Any
    ) -> httpx.Response:
        """Posts `body` as JSON, or `content` unchanged, and checks the reply with `check_decent`."""
        if content is None:
            content = json.dumps(body)
        headers = {"content-type": "application/json", **options.pop("headers", {})}
        began = time.monotonic()
        reply = self._client.request(
            options.pop("method", "POST"), path, content=content, headers=headers, **options
        )
        assert time.monotonic() - began < SLOWEST
        check_decent(reply)
        self.canary()
        return reply

    def refuse(self, path: str, body: Any = None, *, param: str | None, **options: Any) -> httpx.Response:
        """Sends a request that must get a 400 that names `param`."""
        reply = self.send(path, body, **options)
        error = reply.json()
        assert reply.status_code == 400, (reply.status_code, reply.text[:500])
        assert error["error"]["param"] == param, error
        return reply

    def change(self, path: str, change: dict[str, Any], *, param: str | None) -> None:
        """Sends a good request with a change that must be refused."""
        self.refuse(path, {**BASICS[path], **change}, param=param)

    def accept(self, path: str, change: dict[str, Any]) -> dict[str, Any]:
        """Sends a good request with a change that must be served."""
        reply = self.send(path, {**BASICS[path], **change})
        assert reply.status_code == 200, reply.text[:500]
        answer: dict[str, Any] = reply.json()
        return answer

    def canary(self) -> None:
        """Sends another client's request, which must get the same answer every time."""
        reply = self._client.post(COMPLETIONS, json=_CANARY)
        assert reply.status_code == 200, reply.text
        text = reply.json()["choices"][0]["text"]
        self._bystander.canary = self._bystander.canary or text
        assert text == self._bystander.canary
        assert self._bystander.disturbed == []


def check_decent(reply: httpx.Response) -> None:
    """Checks that a reply is no 5xx and not too long, and that an error has the one body and leaks nothing."""
    assert reply.status_code < 500, reply.text[:500]
    if reply.status_code < 400:
        assert len(reply.content) < LONGEST_REPLY
        return
    assert len(reply.content) < LONGEST_ERROR, reply.text[:3000]
    error = reply.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == str(reply.status_code)
    assert "x" * 201 not in reply.text
    assert "Traceback" not in reply.text
    assert "/site-packages/" not in reply.text
