"""Schemas that would take the compiler hours and gigabytes are stopped, and delay no other client for long."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from server.errors import ApiError
from server.tools.fair_turns import FairTurns, TooManyWaitError
from server.tools.grammar_compiler import GrammarCompiler
from server.tools.grammar_trial import GrammarTrial, TrialLimits
from server.tools.grammars import json_rule
from steering.engine.constraint import ConstraintError
from tests.server.fakes import EOS, VOCABULARY, FakeEngine
from tests.server.tools.structured import FORMAT, Toolsmith, chat

EXPLOSIVE = {"type": "integer", "multipleOf": 9999991}


def rules(schema: dict[str, Any]) -> str:
    return "start: answer\n" + json_rule("answer", schema, strict=True, field="f")


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def format_of(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": True}}


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(max_model_len=4096)


@pytest.fixture
def trial() -> Iterator[GrammarTrial]:
    trial = GrammarTrial(VOCABULARY, {EOS})
    yield trial
    trial.close()


@pytest.fixture
async def compiler() -> AsyncIterator[GrammarCompiler]:
    compiler = GrammarCompiler("base", VOCABULARY, {EOS})
    yield compiler
    compiler.close()


def test_a_schema_that_explodes_is_refused_and_the_next_one_is_served(client: TestClient) -> None:
    chat(client, response_format=FORMAT)
    before = resident(os.getpid())
    for number in range(3):
        began = time.monotonic()
        schema = {**EXPLOSIVE, "multipleOf": 9999991 + 2 * number}
        error = chat(client, 400, response_format=format_of(schema))["error"]
        assert error["param"] == "response_format" and "MiB to compile" in error["message"]
        # Another schema, so that it is not one of those that are kept.
        chat(client, response_format=format_of({"type": "array", "minItems": number + 1}))
        assert time.monotonic() - began < 8
    assert resident(os.getpid()) - before < 100 * 2**20


def test_tools_are_under_the_same_limits(client: TestClient, engine: FakeEngine) -> None:
    engine.base.tokenizer = Toolsmith()
    parameters = {"type": "object", "properties": {"a": EXPLOSIVE}}
    tool = {"type": "function", "function": {"name": "f", "parameters": parameters}}
    error = chat(client, 400, tools=[tool], tool_choice="required")["error"]
    assert error["param"] == "tools" and "to compile" in error["message"]


@pytest.mark.parametrize(
    "schema",
    [
        EXPLOSIVE,
        {"allOf": [{"type": "integer", "multipleOf": 997}, {"type": "integer", "multipleOf": 99991}]},
        {"type": "object", "properties": {"a": EXPLOSIVE}, "required": ["a"]},
    ],
    ids=lambda schema: json.dumps(schema)[:40],
)
def test_the_limits_hold_for_each_kind_of_explosion(trial: GrammarTrial, schema: dict[str, Any]) -> None:
    trial.try_out('start: "a"')
    began = time.monotonic()
    with pytest.raises(ConstraintError):
        trial.try_out(rules(schema))
    assert time.monotonic() - began < 5
    trial.try_out(rules({"type": "object"}))


def test_time_is_limited_apart_from_memory() -> None:
    trial = GrammarTrial(VOCABULARY, {EOS}, TrialLimits(seconds=0.3, memory=2**40))
    trial.try_out('start: "a"')
    began = time.monotonic()
    with pytest.raises(ConstraintError, match=r"more than 0\.3 seconds"):
        trial.try_out(rules(EXPLOSIVE))
    assert time.monotonic() - began < 5
    trial.close()


def test_a_process_that_is_ended_from_outside_is_replaced(trial: GrammarTrial) -> None:
    for _ in range(2):
        trial.try_out('start: "a"')
        process = trial._process
        assert process is not None
        process.kill()
        process.wait()
    trial.try_out('start: "b"')


def test_a_full_process_is_replaced(trial: GrammarTrial) -> None:
    trial.try_out('start: "a"')
    first = trial._process
    # About 20 MiB each.
    for divisor in range(39_983, 39_983 + 60, 2):
        trial.try_out(rules({"type": "integer", "multipleOf": divisor}))
        if trial._process is not first:
            break
    assert trial._process is not first
    trial.try_out('start: "b"')


def test_keys_are_not_in_the_process(trial: GrammarTrial, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_ADMIN_KEY", "let-me-change")
    trial.try_out('start: "a"')
    assert trial._process is not None
    assert b"let-me-change" not in Path(f"/proc/{trial._process.pid}/environ").read_bytes()


async def test_without_a_process_grammars_are_a_503(
    compiler: GrammarCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **options: Any) -> None:
        raise OSError("no descriptors left")

    with monkeypatch.context() as patch:
        patch.setattr("subprocess.Popen", fail)
        with pytest.raises(ApiError) as caught:
            await compiler.compile('start: "a"', "response_format", "me")
        assert caught.value.status == 503
    await compiler.compile('start: "a"', "response_format", "me")


async def test_one_clients_explosions_do_not_starve_another(compiler: GrammarCompiler) -> None:
    await compiler.compile('start: "a"', "f", "good")

    async def explode(number: int) -> int:
        try:
            await compiler.compile(rules({**EXPLOSIVE, "multipleOf": 9999991 + number}), "f", "bad")
        except ApiError as error:
            return error.status
        return 200

    attack = [asyncio.create_task(explode(number)) for number in range(30)]
    await asyncio.sleep(0)
    for number in range(3):
        began = time.monotonic()
        await compiler.compile(f'start: "good {number}"', "f", "good")
        assert time.monotonic() - began < 6
    # A grammar that is kept needs no turn.
    began = time.monotonic()
    await compiler.compile('start: "a"', "f", "good")
    assert time.monotonic() - began < 0.1
    for task in attack:
        task.cancel()
    statuses = await asyncio.gather(*attack, return_exceptions=True)
    # One has its turn and sixteen wait; the others were refused at once.
    assert statuses.count(429) == 13


async def test_a_refused_grammar_is_not_tried_again(compiler: GrammarCompiler) -> None:
    for _ in range(2):
        began = time.monotonic()
        with pytest.raises(ApiError, match="to compile"):
            await compiler.compile(rules(EXPLOSIVE), "f", "me")
    assert time.monotonic() - began < 0.1


async def test_turns_rotate_between_clients() -> None:
    turns = FairTurns(longest=3)
    order: list[str] = []

    async def work(client: str) -> None:
        async with turns.turn(client):
            order.append(client)
            await asyncio.sleep(0)

    tasks = [asyncio.create_task(work(client)) for client in ("a", "a", "a", "a", "b", "c", "b")]
    await asyncio.sleep(0)
    with pytest.raises(TooManyWaitError):
        await work("a")
    await asyncio.gather(*tasks)
    assert order == ["a", "a", "b", "c", "a", "b", "a"]
    # A turn that is given up while it waits, or has just been given, passes on.
    holding, waiting, last = (asyncio.create_task(work(client)) for client in ("a", "b", "c"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(holding, waiting, last, return_exceptions=True)
    assert order[-2:] == ["a", "c"]
