"""The official client against a real HTTP server over real, tiny engines."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from server.app import build_app
from server.config import load_config
from server.http_server import make_server
from server.replies.token_text import token_text
from server.service import Service
from tests.models import save_folder, tiny_model, tokenizer_byte_level, tokenizer_sentencepiece

PROMPT = "The ferry left the harbour"


@dataclass(frozen=True)
class Running:
    url: str
    service: Service


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two bases of unlike architectures and vocabularies, and a tiny model that steers both."""
    folder = tmp_path_factory.mktemp("tiny")
    pieces, bytes_ = tokenizer_sentencepiece(), tokenizer_byte_level()
    ends = {"bos_token_id": bytes_.bos_token_id, "eos_token_id": bytes_.eos_token_id}
    return {
        "pieces": save_folder(folder / "pieces", tiny_model("llama", len(pieces), 1), pieces),
        "bytes": save_folder(folder / "bytes", tiny_model("gpt2", len(bytes_), 2, ends), bytes_),
        "steer": save_folder(folder / "steer", tiny_model("qwen2", len(bytes_), 3, ends), bytes_),
    }


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRIMTAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        config = load_config(
            model={name: str(folders[name]) for name in ("pieces", "bytes")},
            adapter={"steer": str(folders["steer"])},
            device="cpu",
            port=0,
            api_key=["secret"],
        )
        app = build_app(config)
    http = make_server(app, config)
    thread = threading.Thread(target=http.run, daemon=True)
    thread.start()
    wait_for(lambda: http.started)
    listener: socket.socket = http.servers[0].sockets[0]
    yield Running(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service)
    http.should_exit = True
    thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _nothing_is_left(server: Running) -> Iterator[None]:
    """Law 8: whenever the server is idle, every page is free."""
    yield
    for base in server.service.bases.values():
        wait_for(lambda base=base: not base.engine.has_work and base.worker.pending == 0)  # type: ignore[misc]
        engine: Any = base.engine
        engine.check_integrity()


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="secret", max_retries=0) as client:
        yield client


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.005)


MODELS = ["pieces", "bytes", "pieces:steer", "bytes:steer"]


def test_the_client_lists_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["pieces", "pieces:steer", "bytes", "bytes:steer"]
    assert client.models.retrieve("bytes:steer").id == "bytes:steer"


@pytest.mark.parametrize("model", MODELS)
def test_completions_streamed_and_not_agree(client: openai.OpenAI, model: str) -> None:
    whole = client.completions.create(model=model, prompt=PROMPT, max_tokens=12, temperature=0, logprobs=2)
    stream = client.completions.create(
        model=model,
        prompt=PROMPT,
        max_tokens=12,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == whole.choices[0].text
    assert chunks[-1].usage == whole.usage
    assert whole.usage is not None
    assert whole.choices[0].logprobs is not None
    assert whole.usage.completion_tokens == len(whole.choices[0].logprobs.tokens or [])


@pytest.mark.parametrize("model", MODELS)
def test_chat_streamed_and_not_agree(client: openai.OpenAI, model: str) -> None:
    messages: Any = [{"role": "user", "content": "What is your telephone number?"}]
    whole = client.chat.completions.create(
        model=model, messages=messages, max_tokens=10, temperature=0, logprobs=True, top_logprobs=2
    )
    stream = client.chat.completions.create(
        model=model, messages=messages, max_tokens=10, temperature=0, stream=True
    )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in stream)
    assert text == whole.choices[0].message.content
    assert whole.choices[0].logprobs is not None


def test_steering_changes_the_answer_and_alpha_0_does_not(client: openai.OpenAI) -> None:
    def ask(model: str, **extra: Any) -> str:
        reply = client.completions.create(
            model=model, prompt=PROMPT, max_tokens=12, temperature=0, extra_body=extra
        )
        return reply.choices[0].text

    for base in ("pieces", "bytes"):
        alone = ask(base)
        assert ask(base, steering={"adapter": "steer", "alpha": 0.0}) == alone
        assert ask(f"{base}:steer") != alone
        assert ask(base, steering="steer") == ask(f"{base}:steer")


@pytest.mark.parametrize("model", ["bytes", "bytes:steer"])
def test_an_echo_scores_a_generated_answer_alike(server: Running, client: openai.OpenAI, model: str) -> None:
    vocabulary = server.service.bases["bytes"].engine.base.vocabulary
    ids = {token_text(vocabulary, token_id): token_id for token_id in range(len(vocabulary))}

    def score(prompt: list[int], max_tokens: int) -> tuple[list[str], list[float | None]]:
        reply = client.completions.create(
            model=model,
            prompt=prompt,
            max_tokens=max_tokens,
            temperature=0,
            logprobs=1,
            echo=True,
            extra_body={"ignore_eos": True},
        )
        logprobs = reply.choices[0].logprobs
        assert logprobs is not None
        return list(logprobs.tokens or []), list(logprobs.token_logprobs or [])

    tokens, said = score([45, 46, 47], 6)
    again, scored = score([ids[token] for token in tokens], 0)
    assert again == tokens
    assert (said[0], scored[0]) == (None, None)
    assert scored[1:] == pytest.approx(said[1:], abs=1e-4)


def test_errors_are_the_clients_own(server: Running, client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="nobody"):
        client.completions.create(model="nobody", prompt="hi")
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="bytes", prompt="a ferry " * 400)
    assert caught.value.param == "prompt"
    assert "256" in caught.value.message
    stranger = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()


def test_many_at_once_are_each_their_own(client: openai.OpenAI) -> None:
    def ask(prompt: Any, **fields: Any) -> list[str]:
        reply = client.completions.create(
            model="bytes:steer", prompt=prompt, max_tokens=8, temperature=0, **fields
        )
        return [choice.text for choice in reply.choices]

    prompts = [PROMPT, "In winter the lake", "He wrote three books"]
    assert ask(prompts) == [text for prompt in prompts for text in ask(prompt)]
    sampled = client.completions.create(model="bytes", prompt=PROMPT, n=3, seed=5, max_tokens=8)
    again = client.completions.create(model="bytes", prompt=PROMPT, n=3, seed=5, max_tokens=8)
    assert [c.text for c in sampled.choices] == [c.text for c in again.choices]
    assert len({c.text for c in sampled.choices}) == 3


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_disconnects_frees_its_pages(
    server: Running, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = server.service.bases["pieces"]
    ended: list[bool] = []
    abort = base.engine.abort
    monkeypatch.setattr(base.engine, "abort", lambda request_id: ended.append(abort(request_id)))
    body = {
        "model": "pieces:steer",
        "prompt": PROMPT,
        "max_tokens": 200,
        "n": 8,
        "ignore_eos": True,
        "stream": stream,
    }
    with httpx.Client(base_url=server.url, headers={"authorization": "Bearer secret"}) as client:
        if stream:
            with client.stream("POST", "/v1/completions", json=body, timeout=20) as reply:
                next(reply.iter_lines())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post("/v1/completions", json=body, timeout=0.1)
    # All eight were aborted before they had finished. `_nothing_is_left` checks that their pages are free.
    wait_for(lambda: ended == [True] * 8)
    wait_for(lambda: base.worker.stats.running == 0)
