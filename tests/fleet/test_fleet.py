"""Replicas on Ray Serve: one set of adapters, one page of metrics, and a replica that dies is replaced."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time

import httpx
import pytest

from tests.fleet.fleet_process import ADMIN_KEY, FleetProcess, wait_until
from tests.fleet.traffic import MODEL, QUESTION, Traffic

NOTICED_SECONDS = 3.0
"""Within this time after its death a replica is sent nothing more."""

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}


def ask(client: httpx.Client, model: str) -> httpx.Response:
    return client.post("/v1/completions", json={"model": model, "prompt": QUESTION, "max_tokens": 2})


def each_once(running: FleetProcess, count: int, model: str) -> list[httpx.Response]:
    """Requests on connections of their own, which the balancer spreads over the replicas."""
    replies = []
    for _ in range(count):
        with running.client() as client:
            replies.append(ask(client, model))
    return replies


def test_a_change_holds_at_every_replica_when_its_reply_comes(running: FleetProcess, replicas: int) -> None:
    assert len(running.answering()) == replicas == len(running.replica_pids())
    with running.client() as admin:
        for path in ("letter", "pirate", "forget"):
            reply = admin.post("/v1/adapters", json={"name": "forget", "path": path, "replace": True})
            assert reply.status_code == 200, reply.text
            replies = each_once(running, 12, f"{MODEL}:forget")
            versions = {reply.headers["x-trimtab-steering"].partition("*")[0] for reply in replies}
            assert versions == {f"forget@{reply.json()['version']}"}
        assert admin.post("/v1/adapters", json={"name": "new", "path": "letter"}).status_code == 200
        names = {card["id"] for card in admin.get("/v1/models").json()["data"]}
        assert f"{MODEL}:new" in names
        assert {reply.status_code for reply in each_once(running, 12, f"{MODEL}:new")} == {200}
        assert admin.delete("/v1/adapters/new").status_code == 200
        assert {reply.status_code for reply in each_once(running, 12, f"{MODEL}:new")} == {404}


def test_requests_are_spread_and_one_page_has_the_metrics_of_all(
    running: FleetProcess, replicas: int
) -> None:
    each_once(running, 6 * replicas, MODEL)
    with running.client() as client:
        text = client.get("/metrics").text
    served = re.findall(r'trimtab_prompt_tokens_total\{replica="([^"]+)",adapter="none"', text)
    assert len(set(served)) == replicas
    heads = re.findall(r"# TYPE (\S+)", text)
    assert len(heads) == len(set(heads))


def test_a_reply_has_its_id_once(running: FleetProcess) -> None:
    with running.client() as client:
        for sent in ({}, {"x-request-id": "my-own-id"}):
            given = client.get("/v1/models", headers=sent).headers.get_list("x-request-id")
            assert len(given) == 1
            assert given == list(sent.values()) or not sent


def pending(client: httpx.Client) -> float:
    lines = re.findall(r"trimtab_num_requests_(?:running|waiting)\{.*\} (\S+)", client.get("/metrics").text)
    return sum(float(value) for value in lines)


def generated(client: httpx.Client) -> float:
    lines = re.findall(r"trimtab_generation_tokens_total\{.*\} (\S+)", client.get("/metrics").text)
    return sum(float(value) for value in lines)


@pytest.mark.parametrize("replicas", [2], indirect=True, scope="module")
def test_a_reader_that_stops_is_dropped_and_one_that_leaves_is_noticed(running: FleetProcess) -> None:
    body = {
        "model": f"{MODEL}:forget",
        "prompt": "x",
        "max_tokens": 480,
        "n": 96,
        "stream": True,
        "ignore_eos": True,
        "logprobs": 5,
        "steering_details": True,
    }
    sent = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(sent)}"
    with running.client() as client:
        for leaves in (True, False):
            before = generated(client)
            with socket.socket() as reader:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                reader.connect((client.base_url.host, client.base_url.port or 80))
                reader.sendall(f"{head}\r\n\r\n".encode() + sent)
                wait_until(lambda: pending(client) == 96, 20)
                if leaves:
                    reader.close()
                wait_until(lambda: pending(client) == 0, 60)
            assert generated(client) - before < 0.8 * 96 * 480
    wait_until(lambda: b"dropped=the client took nothing of its reply" in running.log.read_bytes(), 20)


def test_a_replica_killed_under_load_costs_its_own_requests_only(
    running: FleetProcess, replicas: int
) -> None:
    traffic, paths = Traffic(running.url, ADMIN), ["forget", "letter"]
    traffic.learn(paths)
    threads = [
        threading.Thread(target=traffic.run, args=(300, 6)),
        threading.Thread(target=traffic.replace_for_ever, args=(paths, 0.3)),
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: sum(traffic.outcomes.answered.values()) > 60, 60)
    victim = running.replica_pids()[0]
    killed = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    for thread in threads:
        thread.join()
    outcomes = traffic.outcomes
    assert outcomes.wrong == []
    assert sum(outcomes.answered.values()) + len(outcomes.failed) == 300
    # Each client had one request under way, and sent at most one more to the dead replica before that was noticed.
    late = [(round(began - killed, 2), why) for began, why in outcomes.failed if began > killed]
    assert len(outcomes.failed) - len(late) <= 6
    assert len(late) <= 6
    assert all(after < NOTICED_SECONDS for after, why in late), late
    wait_until(lambda: len(running.answering()) == replicas, 60)
    assert victim not in running.replica_pids()
    current = traffic.changes[-1].version
    for reply in each_once(running, 12, f"{MODEL}:swap"):
        assert f"swap@{current}*" in reply.headers["x-trimtab-steering"]


def test_a_stop_ends_replies_in_order_and_leaves_no_process(running: FleetProcess) -> None:
    body = {"model": MODEL, "prompt": "x", "max_tokens": 400, "n": 8, "stream": True, "ignore_eos": True}
    with running.client() as client, client.stream("POST", "/v1/completions", json=body) as reply:
        lines = reply.iter_lines()
        next(lines)
        stopped: list[int] = []
        stop = threading.Thread(target=lambda: stopped.append(running.stop()))
        stop.start()
        assert [line for line in lines if line][-1] == "data: [DONE]"
    stop.join()
    assert stopped == [0]
    wait_until(lambda: not list(running.processes()), 10)
