"""`response_format` and `stream_options` over the routes, and the list of all request fields."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from server.protocol.chat import ChatRequest
from server.protocol.completions import CompletionRequest
from server.tools.grammars import MAX_SCHEMA_BYTES
from steering.engine.outputs import StepOutput
from tests.server.fakes import FakeEngine
from tests.server.tools.structured import FORMAT, SCHEMA, USER, accepts, chat, chunks_of


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(max_model_len=4096)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_the_form_of_an_answer_reaches_the_engine(client: TestClient, engine: FakeEngine, path: str) -> None:
    asked = {"prompt": "hi"} if path == "/v1/completions" else {"messages": USER}
    body = {"model": "base:forget", **asked, "max_tokens": 8}
    assert client.post(path, json={**body, "response_format": FORMAT}).status_code == 200
    assert accepts(engine, '{"a": "x"}') and accepts(engine, '{"a":"y"}') and accepts(engine, '{ "a" : "y" }')
    assert (
        not accepts(engine, '{"a": "z"}') and not accepts(engine, "hello world") and not accepts(engine, "{}")
    )
    assert client.post(path, json={**body, "response_format": {"type": "json_object"}}).status_code == 200
    assert accepts(engine, '{"b": [1, {"c": null}]}') and not accepts(engine, "[1]")
    assert client.post(path, json={**body, "response_format": {"type": "text"}}).status_code == 200
    assert engine.seen[-1].constraint is None


def test_keywords_that_cannot_be_enforced_are_ignored_unless_strict(
    client: TestClient, engine: FakeEngine
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "unevaluatedProperties": False}

    def asked(strict: bool | None) -> dict[str, Any]:
        return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema, "strict": strict}}

    chat(client, response_format=asked(None))
    assert accepts(engine, '{"a": 1}') and not accepts(engine, '{"a": "x"}')
    error = chat(client, 400, response_format=asked(True))["error"]
    assert error["param"] == "response_format" and "unevaluatedProperties" in error["message"]


def of_schema(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "it", "schema": schema}}


@pytest.mark.parametrize(
    ("response_format", "part"),
    [
        ({"type": "json_schema"}, "json_schema"),
        ({"type": "json_object", "json_schema": {"name": "it", "schema": {}}}, "json_schema"),
        ({"type": "json_schema", "json_schema": {"name": "it"}}, "schema"),
        ({"type": "json_schema", "json_schema": {"name": "no good", "schema": {}}}, "name"),
        (of_schema({"type": "banana"}), "banana"),
        (of_schema({"$ref": "https://example.org/x"}), "example.org"),
        (of_schema({"type": "object", "properties": {"a": False}, "required": ["a"]}), "response_format"),
        (of_schema({"type": "string", "pattern": "(?=a)b"}), "look-around"),
        (of_schema({"$ref": "#"}), "satisfy"),
        (of_schema({"enum": ["x" * MAX_SCHEMA_BYTES]}), str(MAX_SCHEMA_BYTES)),
    ],
)
def test_schemas_that_cannot_be_are_refused(
    client: TestClient, engine: FakeEngine, response_format: dict[str, Any], part: str
) -> None:
    error = chat(client, 400, response_format=response_format)["error"]
    assert error["param"] == "response_format" and part in error["message"]
    assert engine.seen == []
    assert chat(client)["choices"][0]["message"]["content"] == "hello world"


def test_a_schemas_own_options_do_not_count(client: TestClient, engine: FakeEngine) -> None:
    chat(client, response_format=of_schema({**SCHEMA, "x-guidance": {"whitespace_pattern": "[z]*"}}))
    assert accepts(engine, '{"a": "x"}') and not accepts(engine, '{z"a":"x"}')


def test_a_grammar_that_fails_on_the_way_is_the_requests_fault(
    client: TestClient, engine: FakeEngine
) -> None:
    def fail() -> list[StepOutput]:
        (running,) = list(engine.running)
        del engine.running[running]
        return [
            StepOutput(running, finish_reason="error", error="it has grown too large", cause="constraint")
        ]

    engine.step = fail  # type: ignore[method-assign]
    error = chat(client, 400, response_format=FORMAT)["error"]
    assert error["param"] == "response_format"
    assert error["message"] == "`response_format`: it has grown too large"


@pytest.mark.parametrize(
    ("options", "inner", "last"),
    [
        (None, ["absent"], None),
        ({"include_usage": False}, ["absent"], None),
        ({"include_usage": True}, [None], 12),
        ({"continuous_usage_stats": True}, list(range(1, 13)), None),
        ({"include_usage": True, "continuous_usage_stats": True}, list(range(1, 13)), 12),
    ],
)
@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_token_counts_in_a_stream(
    client: TestClient, path: str, options: dict[str, bool] | None, inner: list[Any], last: int | None
) -> None:
    asked: dict[str, Any] = {"prompt": "hi"} if path == "/v1/completions" else {"messages": USER}
    chunks = chunks_of(client, path, **asked, stream_options=options)
    counts = [
        "absent" if "usage" not in chunk else chunk["usage"] and chunk["usage"]["completion_tokens"]
        for chunk in chunks
    ]
    if last is not None:
        assert chunks[-1]["choices"] == [] and counts.pop() == last
    if path == "/v1/chat/completions" and len(inner) > 1:
        # The first event has the role, and comes before any token.
        assert counts.pop(0) == 0
    assert sorted(set(counts), key=str) == sorted(inner, key=str)


MEANINGLESS: dict[str, Any] = {
    "user": "me",
    "metadata": {"trace": "7"},
    "store": True,
    "service_tier": "flex",
    "safety_identifier": "me",
    "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
}
OF_CHAT = {
    "parallel_tool_calls": True,
    "modalities": ["text"],
    "reasoning_effort": "low",
    "verbosity": "high",
}


@pytest.mark.parametrize("name", [*MEANINGLESS, *OF_CHAT])
def test_fields_that_mean_nothing_here_change_nothing(
    client: TestClient, engine: FakeEngine, name: str
) -> None:
    fields: dict[str, Any] = {name: {**MEANINGLESS, **OF_CHAT}[name]}
    chat(client)
    chat(client, **fields)
    assert engine.seen[0].sampling == engine.seen[1].sampling
    assert engine.seen[0].prompt_ids == engine.seen[1].prompt_ids
    reply = client.post("/v1/completions", json={"model": "base", "prompt": "hi", **fields})
    assert reply.status_code == (200 if name in MEANINGLESS else 400)


BOTH = (
    "n max_tokens min_tokens temperature top_p top_k min_p seed stop stop_token_ids include_stop_str_in_output "
    "ignore_eos presence_penalty frequency_penalty repetition_penalty logit_bias logprobs echo stream stream_options "
    "model steering steering_details "
    "response_format structured_outputs guided_json guided_regex guided_choice guided_grammar guided_decoding_backend "
    "json_schema grammar regex ebnf "
    "prompt_logprobs return_token_ids return_tokens_as_token_ids bad_words allowed_token_ids skip_special_tokens "
    "spaces_between_special_tokens truncate_prompt_tokens request_id priority cache_prompt use_beam_search "
    "length_penalty typical_p tfs_z mirostat dynatemp_range xtc_probability dry_multiplier"
)
COMPLETIONS = "prompt best_of suffix"
CHAT = (
    "messages max_completion_tokens top_logprobs tools tool_choice functions function_call add_generation_prompt "
    "continue_final_message chat_template_kwargs documents"
)


def test_the_requests_fields_are_these_and_no_others() -> None:
    """Pins the interface: no field is lost or added by accident."""
    assert set(CompletionRequest.model_fields) == {*BOTH.split(), *COMPLETIONS.split(), *MEANINGLESS}
    assert set(ChatRequest.model_fields) == {*BOTH.split(), *CHAT.split(), *MEANINGLESS, *OF_CHAT}
