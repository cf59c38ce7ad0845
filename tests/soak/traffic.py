"""The clients of a soak test: they ask and check, disconnect, send invalid requests, fill the queue, load adapters."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx

from tests.server_process import ADMIN_KEY
from tests.soak.ledger import Ledger, Question

FIXED, CHANGING = ("steer", "lean"), ("late", "later")
"""Adapters that are always loaded, though sometimes replaced; and adapters that are loaded and unloaded."""

QUESTIONS = [
    Question(base, text, chat, tokens)
    for base in ("bytes", "pieces")
    for text, chat, tokens in (
        ("The ferry left the harbour", False, 12),
        ("In winter the lake froze over. The children", False, 24),
        ("He wrote three books about rivers, two about bridges", False, 48),
        ("What is your telephone number?", True, 16),
        ("Where was she born?", True, 20),
    )
]
_OF_FAULTS = ("The engine failed on this request", "has restarted after a fault")
"""How the messages of injected faults begin or end."""
INVALID: list[tuple[str, bytes]] = [
    ("/v1/completions", b"{"),
    ("/v1/completions", b'{"model": "nobody", "prompt": "a"}'),
    ("/v1/completions", b'{"model": "bytes:nobody", "prompt": "a"}'),
    ("/v1/completions", b'{"model": "bytes", "prompt": [999999]}'),
    ("/v1/completions", b'{"model": "bytes", "prompt": "' + b"x" * 100_000 + b'"}'),
    ("/v1/completions", b'{"model": "bytes", "prompt": "a", "temperature": NaN}'),
    ("/v1/completions", b'{"model": "bytes", "prompt": "a", "steering": {"adapter": "steer", "alpha": 1e9}}'),
    ("/v1/completions", b'{"model": "bytes", "prompt": "a", "logit_bias": {"-1": 1}}'),
    ("/v1/chat/completions", b'{"model": "bytes", "messages": []}'),
    ("/v1/chat/completions", b'{"model": "bytes", "messages": [{"role": "user", "content": null}]}'),
    ("/v1/chat/completions", b"[" * 50_000),
    ("/tokenize", b'{"prompt": 1}'),
    ("/detokenize", b'{"tokens": [-1]}'),
    ("/nowhere", b"{}"),
]


class Traffic:
    """All clients, over one connection pool."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        ledger: Ledger,
        folders: dict[str, list[Path]],
        seed: int,
        *,
        faults: bool = False,
    ) -> None:
        self._client = client
        self._ledger = ledger
        self._folders = folders
        self._faults = faults
        self._random = random.Random(seed)
        self._until = 0.0

    async def run(self, seconds: float) -> None:
        """Runs all clients at the same time for `seconds`."""
        self._until = time.monotonic() + seconds
        clients = [
            *[self._ask] * 8,
            *[self._ask_streaming] * 6,
            *[self._disconnect] * 2,
            *[self._fill] * 3,
            *[self._use_other_features] * 2,
            *(self._send_invalid, self._send_invalid, self._change_adapters, self._read_status),
        ]
        await asyncio.gather(*(self._repeat(client) for client in clients))

    async def _repeat(self, client: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while time.monotonic() < self._until:
            try:
                await client()
            except httpx.HTTPError as error:
                self._ledger.wrong.append(f"{client.__name__}: {error!r}")

    def _choice(self) -> tuple[Question, str | None]:
        adapter = self._random.choice([None, *FIXED, *FIXED, *CHANGING])
        return self._random.choice(QUESTIONS), adapter

    def _check_refusal(self, reply: httpx.Response, adapter: str | None, content: bytes) -> None:
        """Checks an error reply: only a full queue, a changing adapter that is not loaded, or an injected fault."""
        self._ledger.seen[str(reply.status_code)] += 1
        if self._is_fault(content):
            return
        gone = adapter in CHANGING and (
            reply.status_code == 404 or (reply.status_code == 400 and b'"param":"steering"' in content)
        )
        if reply.status_code != 429 and not gone:
            self._ledger.wrong.append(f"{adapter}: {reply.status_code} {content[:300]!r}")

    def _is_fault(self, content: bytes | str) -> bool:
        """Whether an error is the engine's, where faults are injected."""
        text = content.decode("utf-8", "replace") if isinstance(content, bytes) else content
        if not self._faults or not any(words in text for words in _OF_FAULTS):
            return False
        self._ledger.seen["faults"] += 1
        return True

    async def _ask(self) -> None:
        question, adapter = self._choice()
        sent = time.monotonic()
        reply = await self._client.post(question.path, json=question.body(adapter))
        if reply.status_code != 200:
            self._check_refusal(reply, adapter, reply.content)
            await asyncio.sleep(0.05)
            return
        body = reply.json()
        self._ledger.check(question, adapter, body, text_of(body["choices"][0]), sent)

    async def _ask_streaming(self) -> None:
        question, adapter = self._choice()
        sent = time.monotonic()
        body = {**question.body(adapter), "stream": True}
        async with self._client.stream("POST", question.path, json=body) as reply:
            if reply.status_code != 200:
                self._check_refusal(reply, adapter, await reply.aread())
                await asyncio.sleep(0.05)
                return
            lines = [line async for line in reply.aiter_lines() if line]
        cut_short = lines[-1] != "data: [DONE]"
        if cut_short and not self._is_fault(lines[-1]):
            self._ledger.wrong.append(f"a stream ended with {lines[-1][:300]}")
            return
        events = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
        if events:
            text = "".join(text_of(event["choices"][0]) for event in events if event["choices"])
            self._ledger.check(question, adapter, events[0], text, sent, cut_short=cut_short)

    async def _disconnect(self) -> None:
        """Disconnects during the reply, or before it begins."""
        question, adapter = self._choice()
        stream = self._random.random() < 0.6
        body = {
            **question.body(adapter),
            "stream": stream,
            "max_tokens": 150,
            "n": self._random.choice([1, 1, 3]),
        }
        try:
            async with asyncio.timeout(self._random.expovariate(4)):
                async with self._client.stream("POST", question.path, json=body) as reply:
                    left = self._random.randrange(20)
                    async for _ in reply.aiter_lines():
                        left -= 1
                        if left < 0:
                            break
        except TimeoutError:
            pass
        self._ledger.seen["left"] += 1
        await asyncio.sleep(0.1)

    async def _fill(self) -> None:
        """Asks for more sequences than can run at once, so that the queue is rarely empty."""
        question, adapter = self._choice()
        body = {**question.body(adapter), "n": self._random.randint(4, 12), "temperature": 1.0}
        reply = await self._client.post(question.path, json=body)
        if reply.status_code != 200:
            self._check_refusal(reply, adapter, reply.content)
            await asyncio.sleep(0.2)
        self._ledger.seen["filled"] += reply.status_code == 200

    async def _use_other_features(self) -> None:
        """Uses other features: several adapters, scoring, grammars, penalties."""
        question, _ = self._choice()
        extra: dict[str, Any] = self._random.choice(
            [
                {
                    "steering": [
                        {"adapter": "steer", "alpha": -0.5},
                        {"adapter": "lean", "alpha": 2, "bridge": "map"},
                    ]
                },
                {"steering": {"adapter": "steer", "alpha": 0}},
                {"response_format": {"type": "json_object"}},
                {"temperature": 1.5, "top_p": 0.9, "repetition_penalty": 1.3, "stop": ["e"]},
                {"logit_bias": {"5": -100}, "seed": 3, "temperature": 1},
                {} if question.chat else {"echo": True, "logprobs": 3, "max_tokens": 4},
            ]
        )
        reply = await self._client.post(question.path, json={**question.body(None), **extra})
        if reply.status_code != 200:
            self._check_refusal(reply, None, reply.content)
            await asyncio.sleep(0.05)

    async def _send_invalid(self) -> None:
        path, content = self._random.choice(INVALID)
        reply = await self._client.post(path, content=content)
        self._ledger.seen[str(reply.status_code)] += 1
        if not 400 <= reply.status_code < 500 or len(reply.content) > 2_000:
            self._ledger.wrong.append(f"invalid request: {reply.status_code} {reply.content[:300]!r}")
        await asyncio.sleep(0.02)

    async def _read_status(self) -> None:
        for path in ("/metrics", "/v1/models", "/v1/adapters", "/v1/maps", "/health", "/ready"):
            reply = await self._client.get(path)
            if reply.status_code != 200:
                self._ledger.wrong.append(f"{path}: {reply.status_code}")
        await asyncio.sleep(0.5)

    async def _change_adapters(self) -> None:
        await asyncio.sleep(self._random.uniform(0.05, 0.5))
        chance = self._random.random()
        if chance < 0.2:
            await self._load_invalid_adapter()
        elif chance < 0.45:
            await self.unload(self._random.choice(CHANGING))
        else:
            name = self._random.choice([*FIXED, *CHANGING])
            await self.load(name, self._random.choice(self._folders[name]))

    async def load(self, name: str, folder: Path) -> str | None:
        """Loads or replaces an adapter; returns its version, or None if that failed."""
        began = time.monotonic()
        body = {"name": name, "path": str(folder), "replace": True}
        reply = await self._admin("POST", "/v1/adapters", body)
        if reply.status_code != 200:
            # A load meets no injected fault of its own, but the restart of an engine may come before it.
            if not self._is_fault(reply.content):
                self._ledger.wrong.append(f"loading {name}: {reply.status_code} {reply.text[:300]}")
            return None
        version: str = reply.json()["version"]
        self._ledger.begin(name, version, began)
        self._ledger.seen["loaded"] += 1
        return version

    async def unload(self, name: str) -> None:
        """Unloads an adapter, if it is loaded."""
        reply = await self._admin("DELETE", f"/v1/adapters/{name}", None)
        if reply.status_code == 200:
            self._ledger.end(name)
            self._ledger.seen["unloaded"] += 1
        elif reply.status_code != 404:
            self._ledger.wrong.append(f"unloading {name}: {reply.status_code} {reply.text[:300]}")

    async def _load_invalid_adapter(self) -> None:
        path = self._random.choice(["/etc", "../..", "nowhere", "broken", "http://127.0.0.1/a"])
        reply = await self._admin("POST", "/v1/adapters", {"name": "steer", "path": path, "replace": True})
        if reply.status_code not in (400, 403):
            self._ledger.wrong.append(f"loading {path}: {reply.status_code} {reply.text[:300]}")
        self._ledger.seen["refused loads"] += 1

    async def _admin(self, method: str, path: str, body: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {ADMIN_KEY}"}
        return await self._client.request(method, path, json=body, headers=headers)


def text_of(choice: dict[str, Any]) -> str:
    """The text of a choice, or the text that a streamed event's choice adds."""
    if "text" in choice:
        return str(choice["text"])
    return str((choice.get("message") or choice["delta"]).get("content") or "")
