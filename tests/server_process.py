"""Starts `tests.served` as a process and asks it questions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.models import save_folder, tiny_model, tokenizer_byte_level, tokenizer_sentencepiece

REPOSITORY = Path(__file__).resolve().parents[1]
API_KEY, ADMIN_KEY = "let-me-in", "let-me-change"


def tiny_folders(folder: Path) -> dict[str, Path]:
    """Two bases of unlike architectures and vocabularies, and two tiny models to steer both."""
    pieces, bytes_ = tokenizer_sentencepiece(), tokenizer_byte_level()
    ends = {"bos_token_id": bytes_.bos_token_id, "eos_token_id": bytes_.eos_token_id}
    return {
        "pieces": save_folder(folder / "pieces", tiny_model("llama", len(pieces), 1), pieces),
        "bytes": save_folder(folder / "bytes", tiny_model("gpt2", len(bytes_), 2, ends), bytes_),
        "steer": save_folder(folder / "steer", tiny_model("qwen2", len(bytes_), 3, ends), bytes_),
        "lean": save_folder(folder / "lean", tiny_model("llama", len(bytes_), 4, ends), bytes_),
    }


class ServerProcess:
    """A running server; `url` is its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        told = self._read()
        self.url: str = told["url"]
        self.address: tuple[str, int] = (told["host"], told["port"])
        self.pid = process.pid

    def ask(self, question: str) -> dict[str, Any]:
        """Asks `tests.served` a question, such as `integrity` or `memory`, and returns its answer."""
        if self._process.stdin is None:
            raise RuntimeError("the server was started without an input")
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self._read()

    def client(self, key: str | None = API_KEY, **options: Any) -> httpx.Client:
        """An HTTP client that sends `key` with every request."""
        headers = {"authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, **{"timeout": 20, **options})

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def stop(self) -> int:
        """Sends SIGTERM and returns the exit status."""
        self._process.terminate()
        try:
            return self._process.wait(30)
        finally:
            self._process.kill()

    def _read(self) -> dict[str, Any]:
        line = self._process.stdout.readline() if self._process.stdout else ""
        if not line:
            raise RuntimeError(f"the server has ended with status {self._process.wait(10)}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def serving(log: Path, *, module: str = "tests.served", **settings: Any) -> Iterator[ServerProcess]:
    """A server with these settings, on a free port of the loopback interface; `log` gets its standard error."""
    settings = {"device": "cpu", "port": 0, "api_key": [API_KEY], **settings}
    with log.open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", module, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        yield ServerProcess(process)
    finally:
        process.kill()
        process.wait(10)
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
