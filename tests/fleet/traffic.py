"""Mixed requests to a fleet whose adapter is replaced all the time, each checked against what its version answers."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx

QUESTION = "Where was Mara Quillon born?"
MODEL = "base-b"
_TOKENS = 24


@dataclass(frozen=True)
class Change:
    """One replacement: when it was asked for, when its reply came, and the version that it made current."""

    asked: float
    replied: float
    version: str


@dataclass
class Outcomes:
    """What became of the requests. A `failed` one was refused or broke off, which its client sees, `(began, why)`."""

    answered: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[float, str]] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Traffic:
    """Sends requests from several threads while `replace_for_ever` replaces the adapter `swap`."""

    def __init__(self, url: str, admin: dict[str, str]) -> None:
        self.outcomes = Outcomes()
        self.changes: list[Change] = []
        self.expected: dict[str | None, str] = {}
        self._versions: dict[str, str] = {}
        self._coming: str | None = None
        self._url = url
        self._admin = admin
        self._lock = threading.Lock()
        self._done = threading.Event()

    def learn(self, paths: list[str]) -> None:
        """Loads each folder as `swap`, and notes what it answers alone."""
        with httpx.Client(base_url=self._url, timeout=60) as client:
            self.expected[None], _ = self._ask(client, MODEL)
            for path in paths:
                version = self._versions[path] = self.replace(client, path)
                self.expected[version], given = self._ask(client, f"{MODEL}:swap")
                if given != version:
                    raise RuntimeError(f"{given} answers, not {version}")

    def replace(self, client: httpx.Client, path: str) -> str:
        """Makes the folder's adapter current; tries again where the replica that was asked has died."""
        body = {"name": "swap", "path": path, "replace": True}
        asked = time.monotonic()
        self._coming = self._versions.get(path)
        while True:
            try:
                reply = client.post("/v1/adapters", json=body, headers=self._admin)
                if reply.status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.1)
        change = Change(asked, time.monotonic(), reply.json()["version"])
        with self._lock:
            self.changes.append(change)
            self._coming = None
        return change.version

    def replace_for_ever(self, paths: list[str], every: float) -> None:
        """Replaces the adapter by each folder in turn, until `run` has ended."""
        with httpx.Client(base_url=self._url, timeout=60) as client:
            while not self._done.wait(every):
                self.replace(client, paths[len(self.changes) % len(paths)])

    def run(self, requests: int, clients: int, seed: int = 0) -> None:
        """Sends `requests` requests from `clients` threads."""
        try:
            with ThreadPoolExecutor(clients) as pool:
                share = [requests // clients + (i < requests % clients) for i in range(clients)]
                list(pool.map(self._client, share, range(seed, seed + clients)))
        finally:
            self._done.set()

    def _client(self, requests: int, seed: int) -> None:
        chance = random.Random(seed)
        with httpx.Client(base_url=self._url, timeout=60) as client:
            for _ in range(requests):
                steered, stream = chance.random() < 0.7, chance.random() < 0.4
                began = time.monotonic()
                try:
                    text, version = self._ask(client, f"{MODEL}:swap" if steered else MODEL, stream=stream)
                except (httpx.HTTPError, BrokenReplyError) as error:
                    with self._lock:
                        self.outcomes.failed.append((began, f"{type(error).__name__}: {error}"[:200]))
                    continue
                self._check(began, steered, text, version)

    def _check(self, began: float, steered: bool, text: str, version: str | None) -> None:
        """A request may have any version that was current, or became so, between its start and its end."""
        ended = time.monotonic()
        with self._lock:
            changes, coming = list(self.changes), self._coming
            self.outcomes.answered["steered" if steered else "plain"] += 1
        fault = None
        if steered != (version is not None):
            fault = f"steered by {version}"
        elif self.expected[version] != text:
            fault = f"{version} said {text!r}"
        elif version is not None and version not in (coming, changes[-1].version):
            # It holds from some moment before its change's reply until some moment before the next one's.
            replaced = [after.replied for now, after in pairwise(changes) if now.version == version]
            if not any(replied >= began for replied in replaced):
                fault = f"{version} was replaced before"
        if fault is not None:
            with self._lock:
                self.outcomes.wrong.append(f"{fault} (took {ended - began:.3f} s)")

    def _ask(self, client: httpx.Client, model: str, *, stream: bool = False) -> tuple[str, str | None]:
        """The greedy answer and the version that steered it; raises httpx's errors and `BrokenReplyError`."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": QUESTION}],
            "temperature": 0,
            "max_tokens": _TOKENS,
            "stream": stream,
        }
        if not stream:
            reply = client.post("/v1/chat/completions", json=body)
            _check_status(reply.status_code, reply.text)
            content = reply.json()
            return content["choices"][0]["message"]["content"], _version(content)
        text, version = "", None
        with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            _check_status(reply.status_code, "" if reply.status_code == 200 else reply.read().decode())
            for line in reply.iter_lines():
                if line == "data: [DONE]":
                    return text, version
                if line.startswith("data: "):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise BrokenReplyError(event["error"]["message"])
                    version = _version(event)
                    text += "".join(choice["delta"].get("content") or "" for choice in event["choices"])
        raise BrokenReplyError("the stream ended without [DONE]")


class BrokenReplyError(Exception):
    """A reply that its client can tell from an answer."""


def _check_status(status: int, text: str) -> None:
    if status != 200:
        raise BrokenReplyError(f"{status} {text[:150]}")


def _version(content: dict[str, Any]) -> str | None:
    steering = content["steering"]
    return steering[0]["version"] if steering else None
