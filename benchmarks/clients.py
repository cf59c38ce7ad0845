"""Streaming HTTP clients, and the server process that they use."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_START_SECONDS = 300.0
_TIMEOUT = httpx.Timeout(600.0)


@dataclass(frozen=True, slots=True)
class Streamed:
    """One client's stream. `began`: the time of its request. `arrivals`: times with the number of tokens so far.

    All times are seconds of one clock.
    """

    began: float
    arrivals: tuple[tuple[float, int], ...]

    @property
    def tokens(self) -> int:
        """The number of tokens in the whole stream."""
        return self.arrivals[-1][1]

    @property
    def first_token(self) -> float:
        """Seconds from the request to the first event with a token."""
        return self.arrivals[0][0] - self.began

    @property
    def between(self) -> list[float]:
        """Seconds from one token to the next. Tokens that arrived together share the time before them."""
        gaps = []
        for (before, had), (now, has) in zip(self.arrivals, self.arrivals[1:], strict=False):
            gaps.extend([(now - before) / (has - had)] * (has - had))
        return gaps


def rate(streams: Sequence[Streamed]) -> float:
    """Tokens a second of all clients together, between the first request and the last token."""
    ended = max(stream.arrivals[-1][0] for stream in streams)
    return sum(stream.tokens for stream in streams) / (ended - min(stream.began for stream in streams))


def stream_all(url: str, bodies: Sequence[dict[str, Any]]) -> list[Streamed]:
    """Stream every body at the same time, each with a client of its own. Raises RuntimeError for a refusal."""
    return asyncio.run(_stream_all(url, bodies))


async def _stream_all(url: str, bodies: Sequence[dict[str, Any]]) -> list[Streamed]:
    limits = httpx.Limits(max_connections=len(bodies))
    # Reading the environment and certificates would count as the server's time.
    async with httpx.AsyncClient(
        base_url=url, timeout=_TIMEOUT, limits=limits, verify=False, trust_env=False
    ) as client:
        return list(await asyncio.gather(*(_stream(client, body) for body in bodies)))


async def _stream(client: httpx.AsyncClient, body: dict[str, Any]) -> Streamed:
    chunks: list[tuple[float, bytes]] = []
    streaming = {**body, "stream": True, "stream_options": {"continuous_usage_stats": True}}
    began = time.perf_counter()
    async with client.stream("POST", "/v1/completions", json=streaming) as response:
        if response.status_code != httpx.codes.OK:
            raise RuntimeError(f"{response.status_code}: {(await response.aread()).decode()}")
        # Events are parsed after the end of the stream, because the clients share the machine with the server.
        async for chunk in response.aiter_raw():
            chunks.append((time.perf_counter(), chunk))
    return Streamed(began, tuple(read_arrivals(chunks)))


def read_arrivals(chunks: Sequence[tuple[float, bytes]]) -> Iterator[tuple[float, int]]:
    """The times at which events with new tokens were complete, and the number of tokens up to each.

    chunks: (time, bytes) as they were read. Raises RuntimeError for an event that reports an error.
    """
    rest, tokens = b"", 0
    for now, chunk in chunks:
        *events, rest = (rest + chunk).split(b"\n\n")
        for event in events:
            text = event.removeprefix(b"data: ")
            if text == b"[DONE]":
                continue
            content = json.loads(text)
            if "error" in content:
                raise RuntimeError(f"the stream ended with {content['error']}")
            if content["usage"]["completion_tokens"] > tokens:
                tokens = content["usage"]["completion_tokens"]
                yield now, tokens


@contextmanager
def server_process(arguments: Sequence[str], log: Path) -> Iterator[str]:
    """Run `trimtab serve` with these flags on a free port, and yield its address. Its output goes to `log`.

    Raises RuntimeError with the end of its output when it does not come up.
    """
    command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", *arguments]
    root = Path(__file__).resolve().parents[1]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=root)
    try:
        yield _address(process, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        said = log.read_text(encoding="utf-8", errors="replace")
        if found := re.search(r" at (http://\S+)/v1", said):
            return found[1]
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise RuntimeError(f"the server did not come up:\n{said[-2000:]}")
