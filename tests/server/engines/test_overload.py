"""Requests that are too many, too long or too slow are refused or ended in time, and the others are served."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from server.engines.jobs import JobLimits
from server.engines.places import Places
from server.engines.worker import EngineWorker
from server.errors import ApiError
from steering.engine.request import Request, SamplingParams
from tests.server.fakes import FakeEngine
from tests.server_thread import wait_for

MakeClient = Callable[..., TestClient]
COMPLETION = {"model": "base", "prompt": "hi", "max_tokens": 20}
CHAT = {"model": "base", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def tokenized(engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that were tokenized."""
    texts: list[str] = []
    encode = engine.base.tokenizer.encode

    def count(text: str, **options: Any) -> list[int]:
        texts.append(text)
        return list(encode(text, **options))

    monkeypatch.setattr(engine.base.tokenizer, "encode", count)
    return texts


def requests(*names: str) -> list[Request]:
    return [Request(name, (104,), SamplingParams(max_tokens=10**9)) for name in names]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {**COMPLETION, "n": 3}),
        ("/v1/completions", {**COMPLETION, "best_of": 3}),
        ("/v1/completions", {**COMPLETION, "prompt": ["a", "b", "c"]}),
        ("/v1/completions", {**COMPLETION, "prompt": ["a", "b"], "n": 2}),
        ("/v1/chat/completions", {**CHAT, "n": 3}),
    ],
    ids=["n", "best_of", "prompts", "prompts and n", "chat"],
)
def test_a_full_queue_is_a_429_before_anything_is_tokenized(
    make_client: MakeClient, engine: FakeEngine, tokenized: list[str], path: str, body: dict[str, Any]
) -> None:
    client = make_client(max_num_seqs=1, max_queue=3)
    engine.endless = True
    with ThreadPoolExecutor(1) as pool:
        busy = pool.submit(
            client.post, "/v1/completions", json={**COMPLETION, "n": 2, "max_tokens": 60, "prompt": "xx"}
        )
        engine.go.clear()
        wait_for(lambda: engine.stepping)
        already = len(tokenized)
        reply = client.post(path, json=body)
        assert len(tokenized) == already
        engine.go.set()
        assert busy.result(20).status_code == 200
    assert (reply.status_code, reply.json()["error"]["type"]) == (429, "rate_limit_error")
    assert int(reply.headers["retry-after"]) > 0
    engine.endless = False
    assert client.post(path, json=body).status_code == 200


@pytest.mark.parametrize(
    "body", [{**COMPLETION, "n": 5}, {**COMPLETION, "prompt": ["a"] * 5}], ids=["n", "prompts"]
)
def test_more_than_could_ever_wait_is_a_400(
    make_client: MakeClient, tokenized: list[str], body: dict[str, Any]
) -> None:
    reply = make_client(max_num_seqs=2, max_queue=2).post("/v1/completions", json=body)
    assert reply.status_code == 400
    assert tokenized == []


def test_a_place_is_held_while_its_prompt_is_tokenized(
    make_client: MakeClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(max_num_seqs=1, max_queue=0)
    reached, go = threading.Event(), threading.Event()

    def encode(text: str, **options: Any) -> list[int]:
        reached.set()
        go.wait(20)
        return list(text.encode())

    monkeypatch.setattr(engine.base.tokenizer, "encode", encode)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/v1/completions", json=COMPLETION)
        assert reached.wait(20)
        assert client.post("/v1/completions", json=COMPLETION).status_code == 429
        go.set()
        assert first.result(20).status_code == 200
    assert client.post("/v1/completions", json=COMPLETION).status_code == 200


def test_a_tokenizer_with_too_much_to_do_is_a_429(
    make_client: MakeClient, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make_client(max_num_seqs=1, max_queue=0)
    reached, go = threading.Semaphore(0), threading.Event()

    def encode(text: str, **options: Any) -> list[int]:
        reached.release()
        go.wait(20)
        return list(text.encode())

    monkeypatch.setattr(engine.base.tokenizer, "encode", encode)
    with ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.post, "/tokenize", json={"prompt": "hi"}) for _ in range(3)]
        # At most two may wait or run, so one of the three is refused at once.
        assert reached.acquire(timeout=20)
        wait_for(lambda: any(future.done() for future in asked))
        go.set()
        assert sorted(future.result(20).status_code for future in asked) == [200, 200, 429]


@pytest.mark.parametrize("wrong", [{"prompt": ""}, {"max_tokens": -2}, {"model": "base:nobody"}], ids=str)
def test_a_request_that_is_refused_gives_its_place_back(
    make_client: MakeClient, wrong: dict[str, Any]
) -> None:
    client = make_client(max_num_seqs=1, max_queue=0)
    for _ in range(3):
        assert client.post("/v1/completions", json=COMPLETION | wrong).status_code in (400, 404)
    assert client.post("/v1/completions", json=COMPLETION).status_code == 200


@pytest.mark.parametrize(
    ("path", "field"), [("/v1/completions", "prompt"), ("/tokenize", "prompt"), ("/v1/chat/completions", "")]
)
def test_a_prompt_of_too_many_bytes_is_a_413(
    make_client: MakeClient, engine: FakeEngine, tokenized: list[str], path: str, field: str
) -> None:
    engine.max_model_len = 200
    client = make_client(max_prompt_bytes=100)

    def post(text: str) -> Any:
        messages = [{"role": "user", "content": text}]
        extra = {field: text} if field else {"messages": messages}
        return client.post(path, json={"model": "base", **extra})

    # The limit is in bytes: sixty of these characters are 120.
    for text in ("é" * 60, "a" * 101, "a" * 5000):
        reply = post(text)
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "413")
    assert tokenized == []
    assert post("é" * 25).status_code == 200


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_request_past_its_deadline_ends_with_a_503(
    make_client: MakeClient, engine: FakeEngine, stream: bool
) -> None:
    client = make_client(request_timeout=0.3)
    engine.endless = True
    engine.max_model_len = 2 * 10**9
    reply = client.post("/v1/completions", json={**COMPLETION, "max_tokens": 10**9, "stream": stream})
    error = (
        json.loads(reply.text.strip().split("\n\n")[-1].removeprefix("data: ")) if stream else reply.json()
    )["error"]
    assert (error["code"], reply.status_code) == ("503", 200 if stream else 503)
    assert "0.3 seconds" in error["message"]
    wait_for(lambda: not engine.running)


@pytest.fixture
async def worker(engine: FakeEngine) -> AsyncIterator[EngineWorker]:
    limits = JobLimits(seconds=20, backlog=30)
    worker = EngineWorker("base", cast(Any, engine), places=Places("base", 8), limits=limits)
    worker.start()
    yield worker
    engine.go.set()
    await worker.stop()


async def test_a_reader_that_falls_behind_is_dropped_and_the_others_go_on(
    worker: EngineWorker, engine: FakeEngine
) -> None:
    engine.endless = True
    slow, _ = await worker.submit(requests("slow"))
    quick, _ = await worker.submit(requests("quick"))
    async with asyncio.timeout(20):
        while "slow" in engine.running or worker.pending > 1:
            await quick.next()
        with pytest.raises(ApiError, match="too slowly"):
            await slow.next()
        for _ in range(20):
            assert (await quick.next()).request_id == "quick"
    assert worker.pending == 1


async def test_a_job_that_waits_for_admission_past_its_deadline_ends(engine: FakeEngine) -> None:
    worker = EngineWorker("base", cast(Any, engine), places=Places("base", 8), limits=JobLimits(seconds=0.2))
    worker.start()
    engine.endless = True
    engine.go.clear()
    first, _ = await worker.submit(requests("first"))
    # The thread is in its step, so that the second is not admitted.
    await asyncio.to_thread(wait_for, lambda: engine.stepping)
    with pytest.raises(ApiError, match="within the limit"):
        await worker.submit(requests("second"))
    with pytest.raises(ApiError, match="within the limit"):
        await first.next()
    assert worker.pending == 0
    engine.go.set()
    await worker.stop()


async def test_an_errand_runs_on_the_engines_thread_and_its_fault_is_its_own(
    worker: EngineWorker, engine: FakeEngine
) -> None:
    names: list[str] = []
    await worker.run(lambda: names.append(threading.current_thread().name))
    assert names == ["engine-base"]

    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await worker.run(fail)
    job, _ = await worker.submit(requests("after"))
    assert (await asyncio.wait_for(job.next(), 5)).request_id == "after"


async def test_an_errand_for_an_engine_that_dies_is_a_503(worker: EngineWorker, engine: FakeEngine) -> None:
    engine.endless = True
    engine.go.clear()
    await worker.submit(requests("a"))
    await asyncio.to_thread(wait_for, lambda: engine.stepping)
    errand = asyncio.ensure_future(worker.run(lambda: None))
    await asyncio.sleep(0)
    engine.broken = engine.is_beyond_use = True
    engine.go.set()
    for work in (errand, worker.run(lambda: None)):
        with pytest.raises(ApiError) as caught:
            await asyncio.wait_for(work, 5)
        assert caught.value.status == 503
