"""The users that locust simulates: chat, streams and completions; each checks its replies."""

from __future__ import annotations

from typing import Any, ClassVar

from locust import FastHttpUser, constant, task

from tests.clients.running import KEY


class Person(FastHttpUser):
    """A user who sends the next request as soon as the last one is answered."""

    wait_time = constant(0)
    headers: ClassVar = {"authorization": f"Bearer {KEY}"}

    @task(3)
    def chat(self) -> None:
        """A chat, steered by a delta."""
        self._post("/v1/chat/completions", "base-a:forget", messages=self._question(), max_tokens=16)

    @task(2)
    def stream(self) -> None:
        """A streamed chat, unsteered."""
        body = {
            "model": "base-a",
            "messages": self._question(),
            "max_tokens": 16,
            "temperature": 0,
            "stream": True,
        }
        path = "/v1/chat/completions"
        with self.client.post(
            path, json=body, headers=self.headers, name="stream", catch_response=True
        ) as reply:
            if reply.status_code != 200 or not (reply.text or "").endswith("data: [DONE]\n\n"):
                reply.failure(f"{reply.status_code}: the stream is incomplete")

    @task(1)
    def complete(self) -> None:
        """A completion, steered by a proxy."""
        self._post("/v1/completions", "base-a:pirate", prompt="User: Where was", max_tokens=12)

    def _question(self) -> list[dict[str, str]]:
        return [{"role": "user", "content": "Where was Mara Quillon born?"}]

    def _post(self, path: str, model: str, **fields: Any) -> None:
        body = {"model": model, "temperature": 0, **fields}
        with self.client.post(
            path, json=body, headers=self.headers, name=model, catch_response=True
        ) as reply:
            if reply.status_code != 200 or not reply.json()["steering"]:
                reply.failure(f"{reply.status_code}: {(reply.text or '')[:200]}")
