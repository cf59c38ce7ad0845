"""One client's share of the places, and who is served when it is used up."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request as HttpRequest
from starlette.testclient import TestClient

from server.auth import client_of
from server.engines.jobs import Job
from server.engines.places import Places
from server.engines.worker import EngineWorker
from server.errors import ApiError
from steering.engine.request import Request, SamplingParams
from tests.server.fakes import FakeEngine
from tests.server_thread import wait_for

MakeClient = Callable[..., TestClient]
COMPLETION = {"model": "base", "prompt": "hi", "max_tokens": 20}


def requests(name: str, count: int) -> list[Request]:
    return [Request(f"{name}-{number}", (104,), SamplingParams(max_tokens=10**9)) for number in range(count)]


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(endless=True, max_model_len=2 * 10**9)


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_beyond_its_share_is_a_429_and_others_are_served(
    make_client: MakeClient, engine: FakeEngine
) -> None:
    client = make_client(max_num_seqs=2, max_queue=4, max_share_per_key=0.5, api_key=["one", "two"])
    engine.go.clear()
    with ThreadPoolExecutor(4) as pool:
        body = {**COMPLETION, "max_tokens": 5}

        def post(key: str, **change: Any) -> Any:
            return client.post("/v1/completions", json={**body, **change}, headers=bearer(key))

        running = [pool.submit(post, "one") for _ in range(3)]
        wait_for(lambda: client.app.state.service.workers["base"].pending == 3)  # type: ignore[attr-defined]
        refused = post("one")
        assert refused.status_code == 429 and "retry-after" in refused.headers
        assert "may have 3 of the 6 sequences" in refused.json()["error"]["message"]
        served = pool.submit(post, "two")
        wait_for(lambda: client.app.state.service.workers["base"].pending == 4)  # type: ignore[attr-defined]
        engine.go.set()
        assert [future.result(20).status_code for future in (*running, served)] == [200] * 4
    # More than the share could never be served.
    assert post("one", n=4).status_code == 400
    assert post("one", n=3).status_code == 200


def test_without_keys_an_address_has_a_share(make_client: MakeClient) -> None:
    def of(host: str | None, key: str = "", **settings: Any) -> str:
        client = make_client(**settings)
        scope = {
            "type": "http",
            "app": client.app,
            "headers": [(b"authorization", f"Bearer {key}".encode())],
            "client": None if host is None else (host, 1),
        }
        return client_of(cast(Any, HttpRequest(scope)))

    assert of("192.0.2.1") != of("192.0.2.2")
    assert of("2001:db8::1") == of("2001:db8::ffff:1") != of("2001:db8:0:1::1")
    assert of("fe80::1%eth0") == of("fe80::2")
    assert of(None) == ""
    assert of("192.0.2.1", "a", api_key=["a", "b"]) == of("192.0.2.9", "a", api_key=["a", "b"])
    assert of("192.0.2.1", "a", api_key=["a", "b"]) != of("192.0.2.1", "b", api_key=["a", "b"])


async def test_a_clients_jobs_enter_the_engine_within_its_share(engine: FakeEngine) -> None:
    places = Places("base", 100, running=4, share=0.5)
    worker = EngineWorker("base", cast(Any, engine), places=places)
    worker.start()
    jobs = []
    tasks = []

    async def submit(client: str, name: str, count: int = 1) -> None:
        with worker.reserve(count, client) as reservation:
            jobs.append((await worker.submit(requests(name, count), reservation))[0])

    for name in ("a", "b", "c", "d"):
        tasks.append(asyncio.create_task(submit("greedy", name)))
    await asyncio.sleep(0.05)
    assert set(engine.running) == {"a-0", "b-0"}
    await submit("other", "x")
    assert set(engine.running) == {"a-0", "b-0", "x-0"}
    # A sequence that ends makes room for the client's next.
    worker.release(jobs[0])
    await asyncio.sleep(0.05)
    assert set(engine.running) == {"b-0", "c-0", "x-0"}
    # A job that is released while it waits never enters.
    tasks[3].cancel()
    await asyncio.sleep(0.05)
    worker.release(jobs[1])
    await asyncio.sleep(0.05)
    assert set(engine.running) == {"c-0", "x-0"}
    # A job of more sequences than the share runs alone.
    tasks.append(asyncio.create_task(submit("greedy", "many", 3)))
    await asyncio.sleep(0.05)
    assert "many-0" not in engine.running
    for job in jobs[:]:
        worker.release(job)
    await asyncio.sleep(0.05)
    assert set(engine.running) == {"many-0", "many-1", "many-2"}
    worker.release(jobs[-1])
    assert worker.pending == 0
    await worker.stop()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _exhaust(job: Job) -> None:
    while True:
        await job.next()


async def test_jobs_that_wait_for_their_share_survive_a_restart(engine: FakeEngine) -> None:
    worker = EngineWorker("base", cast(Any, engine), places=Places("base", 9, running=2, share=0.5))
    worker.start()
    with worker.reserve(1, "a") as reservation:
        first, _ = await worker.submit(requests("first", 1), reservation)
    with worker.reserve(1, "a") as reservation:
        second = asyncio.create_task(worker.submit(requests("second", 1), reservation))
        await asyncio.sleep(0.05)
    engine.broken = True
    with pytest.raises(ApiError, match="restarted"):
        await _exhaust(first)
    engine.broken = False
    job, _ = await asyncio.wait_for(second, 5)
    assert (await asyncio.wait_for(job.next(), 5)).request_id == "second-0"
    await worker.stop()


@given(
    seed=st.integers(0, 10**6),
    share=st.sampled_from([0.01, 0.3, 0.5, 1.0]),
    running=st.integers(1, 6),
    capacity=st.integers(1, 12),
)
def test_places_are_never_lost_nor_exceeded(seed: int, share: float, running: int, capacity: int) -> None:
    """Any sequence of reservations, entries and ends."""
    chance = random.Random(seed)
    places = Places("base", capacity, running=running, share=share)
    loop = asyncio.new_event_loop()
    handed: list[Job] = []
    left: list[tuple[Job, str]] = []
    try:
        for number in range(60):
            client = chance.choice("abc")
            count = chance.randint(1, 3)
            if chance.random() < 0.5:
                with ExitStack() as stack:
                    try:
                        reservation = stack.enter_context(places.reserve(count, client, 0.0))
                    except ApiError:
                        continue
                    if chance.random() < 0.2:
                        continue
                    job = Job(requests(str(number), count), loop, arrived=0.0, backlog=1, client=client)
                    places.give_up(reservation)
                    handed += places.enter(job)
                    left += [(job, request_id) for request_id in job.request_ids]
            elif left:
                job, request_id = left.pop(chance.randrange(len(left)))
                job.end(request_id)
                handed += places.leave(job)
            assert places.taken == len(left) <= capacity
        while left:
            # Whatever has been handed over ends, and everything else is then handed over.
            job, request_id = next(((job, one) for job, one in left if job in handed), left[0])
            assert job in handed
            left.remove((job, request_id))
            job.end(request_id)
            handed += places.leave(job)
        assert places.taken == 0
        assert len(handed) == len(set(handed))
    finally:
        loop.close()
