"""The worker: dead engines answer every job, full queues refuse jobs, and clients that leave free their places."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from server.engines.jobs import Job
from server.engines.places import Places
from server.engines.restarts import MAX_RESTARTS
from server.engines.worker import EngineWorker
from server.errors import ApiError
from steering.engine.request import Request, SamplingParams
from tests.server.fakes import FakeEngine

MakeClient = Callable[..., TestClient]
BODY = {"model": "base", "prompt": "hi"}


@pytest.fixture
async def worker(engine: FakeEngine) -> AsyncIterator[EngineWorker]:
    worker = EngineWorker("base", cast(Any, engine), places=Places("base", 4))
    worker.start()
    yield worker
    engine.go.set()
    await worker.stop()


def requests(*names: str) -> list[Request]:
    return [Request(name, (104,), SamplingParams(max_tokens=10**9)) for name in names]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - another thread makes it true
            await asyncio.sleep(0.002)


async def test_a_dead_engine_answers_every_waiting_and_later_job(
    worker: EngineWorker, engine: FakeEngine
) -> None:
    engine.go.clear()
    first, _ = await worker.submit(requests("first"))
    # The thread is in its step, so this one waits for admission when the engine dies.
    await until(lambda: engine.stepping)
    second = asyncio.ensure_future(worker.submit(requests("second")))
    await asyncio.sleep(0.05)
    engine.broken = engine.is_beyond_use = True
    engine.go.set()
    for work in (first.next(), second, worker.submit(requests("third"))):
        with pytest.raises(ApiError, match="stopped after a fault") as caught:
            await asyncio.wait_for(work, 5)
        assert caught.value.status == 503
    assert worker.pending == 0


def test_a_dead_engine_is_a_503_and_ill_health(client: TestClient, engine: FakeEngine) -> None:
    engine.broken = engine.is_beyond_use = True
    for _ in range(2):
        reply = client.post("/v1/completions", json=BODY)
        error = reply.json()["error"]
        assert (reply.status_code, error["type"], error["code"]) == (503, "unavailable_error", "503")
        assert "retry-after" in reply.headers
        assert "on fire" not in error["message"]
    for path in ("/health", "/ready"):
        assert client.get(path).status_code == 503
    assert client.get("/v1/models").status_code == 200


def test_a_stream_that_the_engine_leaves_ends_with_an_error(client: TestClient, engine: FakeEngine) -> None:
    def say(request: Request) -> bytes:
        return b"hello"

    engine.say = say
    steps = engine.step

    def step() -> Any:
        if any(running.told == 2 for running in engine.running.values()):
            engine.broken = engine.is_beyond_use = True
        return steps()

    engine.step = step  # type: ignore[method-assign]
    lines = client.post("/v1/completions", json={**BODY, "stream": True}).text.strip().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [event["choices"][0]["text"] for event in events[:-1]] == ["h", "e"]
    assert events[-1]["error"]["code"] == "503"


async def test_after_a_fault_the_engine_serves_later_requests(
    worker: EngineWorker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests that it had end with a 503; one in the inbox meanwhile, and later ones, are served."""
    engine.go.clear()
    first, _ = await worker.submit(requests("first"))
    await until(lambda: engine.stepping)
    second = asyncio.ensure_future(worker.submit(requests("second")))
    await asyncio.sleep(0.05)
    restart = engine.restart

    def mend() -> list[str]:
        engine.broken = False
        return restart()

    monkeypatch.setattr(engine, "restart", mend)
    engine.broken = True
    engine.go.set()
    with pytest.raises(ApiError, match="has restarted after a fault; try again") as caught:
        await asyncio.wait_for(first.next(), 5)
    assert caught.value.status == 503
    job, _ = await asyncio.wait_for(second, 5)
    output = await asyncio.wait_for(job.next(), 5)
    assert output.request_id == "second"
    assert worker.failure is None


async def test_an_engine_that_fails_again_and_again_is_dead_in_the_end(
    worker: EngineWorker, engine: FakeEngine
) -> None:
    engine.broken = True
    for number in range(MAX_RESTARTS):
        job, _ = await worker.submit(requests(str(number)))
        with pytest.raises(ApiError, match="has restarted"):
            await asyncio.wait_for(job.next(), 5)
    job, _ = await worker.submit(requests("last"))
    with pytest.raises(ApiError, match="stopped after a fault"):
        await asyncio.wait_for(job.next(), 5)
    assert worker.failure is not None


async def test_a_request_that_the_engine_fails_to_take_is_a_500_and_disturbs_nobody(
    worker: EngineWorker, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = engine.add_request

    def fail(request: Request) -> Any:
        if request.request_id == "odd":
            raise KeyError("no such character")
        return take(request)

    monkeypatch.setattr(engine, "add_request", fail)
    with pytest.raises(ApiError, match="failed on this request") as caught:
        await worker.submit(requests("even", "odd"))
    assert caught.value.status == 500
    assert "even" in engine.aborted and worker.pending == 0
    job, _ = await worker.submit(requests("next"))
    assert (await asyncio.wait_for(job.next(), 5)).request_id == "next"


async def test_a_full_queue_is_a_429(worker: EngineWorker, engine: FakeEngine) -> None:
    engine.endless = True
    job, _ = await worker.submit(requests("a", "b", "c"))
    with pytest.raises(ApiError) as caught:
        await worker.submit(requests("d", "e"))
    assert caught.value.status == 429
    assert "Retry-After" in caught.value.headers()
    worker.release(job)
    await worker.submit(requests("d", "e"))


async def test_more_sequences_than_could_ever_wait_are_a_400(worker: EngineWorker) -> None:
    with pytest.raises(ApiError) as caught:
        await worker.submit(requests(*"abcde"))
    assert (caught.value.status, caught.value.param) == (400, "n")


async def test_leaving_while_waiting_for_admission_aborts(worker: EngineWorker, engine: FakeEngine) -> None:
    engine.endless = True
    engine.go.clear()
    await worker.submit(requests("first"))
    await until(lambda: engine.stepping)
    waiting = asyncio.ensure_future(worker.submit(requests("second")))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    engine.go.set()
    await until(lambda: "second" in engine.aborted)
    assert worker.pending == 1


async def test_a_stopping_worker_ends_its_jobs(engine: FakeEngine) -> None:
    worker = EngineWorker("base", cast(Any, engine), places=Places("base", 4))
    worker.start()
    engine.endless = True
    job, _ = await worker.submit(requests("a"))
    await worker.stop()
    with pytest.raises(ApiError, match="shutting down"):
        await drain(job)


async def drain(job: Job) -> None:
    async with asyncio.timeout(5):
        while True:
            await job.next()
