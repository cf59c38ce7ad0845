"""Chat: messages left open, values and documents for templates, thoughts, functions in the older form."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.testclient import TestClient

from server.replies.thoughts import ThoughtReader
from tests.server.conftest import MakeClient
from tests.server.fakes import FakeEngine
from tests.server.tools.structured import CALL, USER, WEATHER, Toolsmith, accepts, chat, chunks_of

PATH = "/v1/chat/completions"


class Reader(Toolsmith):
    """A chat template that reads `enable_thinking`, `documents`, names and thoughts, and may open thoughts."""

    chat_template = "<tool_call> enable_thinking documents reasoning_effort"
    opens = ""

    def apply_chat_template(
        self, messages: Any, *, tokenize: bool, add_generation_prompt: bool, **read: Any
    ) -> str:
        text = super().apply_chat_template(
            messages,
            tokenize=tokenize,
            add_generation_prompt=add_generation_prompt,
            tools=read.pop("tools", None),
        )
        for message in messages:
            text += "".join(f" [{message[key]}]" for key in ("name", "reasoning_content") if key in message)
        for name, value in read.items():
            text += f"\n{name}={value[0]['text'] if name == 'documents' else value}"
        return text + (f"\nassistant:{self.opens}" if add_generation_prompt else "")


@pytest.fixture
def engine() -> FakeEngine:
    engine = FakeEngine(max_model_len=4096)
    engine.base.tokenizer = Reader()
    return engine


def prompt_of(engine: FakeEngine) -> str:
    return bytes(engine.seen[-1].prompt_ids).decode()


def test_the_last_message_is_gone_on_with(client: TestClient, engine: FakeEngine) -> None:
    open_turn = [*USER, {"role": "assistant", "content": "Well, "}]
    fields: dict[str, Any] = {"messages": open_turn, "continue_final_message": True}
    assert chat(client, **fields)["choices"][0]["message"]["content"] == "hello world"
    assert prompt_of(engine) == "user: hi\nassistant: Well, "
    assert chat(client, echo=True, **fields)["choices"][0]["message"]["content"] == "Well, hello world"
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(client, PATH, echo=True, **fields)]
    assert "".join(delta.get("content", "") for delta in deltas) == "Well, hello world"
    assert (
        chat(client, 400, add_generation_prompt=True, **fields)["error"]["param"] == "continue_final_message"
    )
    empty = [*USER, {"role": "assistant", "content": ""}]
    error = chat(client, 400, messages=empty, continue_final_message=True)["error"]
    assert error["param"] == "continue_final_message"
    chat(client, add_generation_prompt=False)
    assert prompt_of(engine) == "user: hi"
    ids = client.post("/tokenize", json={"messages": open_turn, "continue_final_message": True}).json()[
        "tokens"
    ]
    assert bytes(ids) == b"user: hi\nassistant: Well, "


def test_values_for_what_the_template_reads(client: TestClient, engine: FakeEngine) -> None:
    documents = [{"title": "A", "text": "b </s>"}]
    chat(client, chat_template_kwargs={"enable_thinking": False}, documents=documents, reasoning_effort="low")
    assert prompt_of(engine) == (
        "user: hi\nenable_thinking=False\nreasoning_effort=low\ndocuments=b </s>\nassistant:"
    )
    for name in ("nobody", "messages", "tools", "chat_template", "tokenize", "enable", "documents"):
        error = chat(client, 400, chat_template_kwargs={name: True})["error"]
        assert error["param"] == "chat_template_kwargs" and repr(name) in error["message"]
    engine.base.tokenizer = Toolsmith()
    engine.base.tokenizer.apply_chat_template = lambda turns, **options: "always the same"
    assert chat(client, 400, documents=documents)["error"]["param"] == "documents"


def test_names_thoughts_and_other_keys_of_messages(client: TestClient, engine: FakeEngine) -> None:
    parts = [
        {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "b"},
    ]
    messages = [
        {"role": "developer", "content": "be kind"},
        {"role": "user", "content": parts, "name": "Mara"},
        {
            "role": "assistant",
            "content": "c",
            "reasoning_content": "hm",
            "id": "x",
            "provider_specific_fields": {},
        },
    ]
    chat(client, messages=messages)
    assert prompt_of(engine) == "system: be kind\nuser: ab\nassistant: c [Mara] [hm]\nassistant:"
    chat(client, messages=[*USER, {"role": "assistant", "content": "c", "reasoning": "hm"}])
    assert "[hm]" in prompt_of(engine)
    assert chat(client, 400, messages=[{**USER[0], "reasoning": "hm"}])["error"]["param"] == "messages"


FUNCTION: Any = WEATHER["function"]


def test_functions_in_the_older_form(client: TestClient, engine: FakeEngine) -> None:
    engine.say = lambda request: CALL.encode()
    fields: dict[str, Any] = {"functions": [FUNCTION], "function_call": {"name": "weather"}}
    choice = chat(client, **fields)["choices"][0]
    call = {"name": "weather", "arguments": '{"town": "Oslo"}'}
    assert choice["message"] == {"role": "assistant", "content": None, "refusal": None, "function_call": call}
    assert choice["finish_reason"] == "function_call"
    assert accepts(engine, CALL) and not accepts(engine, "hello")
    chunks = [chunk["choices"][0] for chunk in chunks_of(client, PATH, messages=USER, **fields)]
    deltas = [chunk["delta"]["function_call"] for chunk in chunks if "function_call" in chunk["delta"]]
    assert deltas[0]["name"] == "weather" and len(deltas) > 2
    assert "".join(delta["arguments"] for delta in deltas) == call["arguments"]
    assert chunks[-1]["finish_reason"] == "function_call"
    past = {"role": "assistant", "content": None, "function_call": call}
    result = {"role": "function", "name": "weather", "content": "rain"}
    chat(client, messages=[*USER, past, result], functions=[FUNCTION], function_call="auto")
    assert prompt_of(engine).startswith('tools: weather\nuser: hi\nassistant: [{"town": "Oslo"}]\ntool: rain')
    chat(client, functions=[FUNCTION], function_call="none")
    assert "tools:" not in prompt_of(engine)
    assert chat(client, 400, functions=[FUNCTION], tools=[WEATHER])["error"]["param"] == "functions"
    assert chat(client, 400, messages=[{**result, "name": None}])["error"]["param"] == "messages"


def test_logprobs_by_a_number(client: TestClient) -> None:
    entry = chat(client, logprobs=2, max_tokens=1)["choices"][0]["logprobs"]["content"][0]
    assert len(entry["top_logprobs"]) == 2
    assert chat(client, logprobs=0)["choices"][0]["logprobs"]["content"][0]["top_logprobs"] == []
    assert chat(client, logprobs=False)["choices"][0]["logprobs"] is None


@pytest.mark.parametrize(
    ("opens", "said", "thoughts", "content"),
    [
        ("", "<think>\nI see </b>.\n</think>\n\nSo 2 < 3.", "I see </b>.", "So 2 < 3."),
        ("<think>\n", "I see.\n</think>So.", "I see.", "So."),
        ("", "No <think>thoughts</think>", None, "No <think>thoughts</think>"),
        ("<think>", "still thinking </thi", "still thinking </thi", None),
        ("", "<thin", None, "<thin"),
    ],
)
def test_thoughts_are_told_from_text(
    make_client: MakeClient,
    engine: FakeEngine,
    opens: str,
    said: str,
    thoughts: str | None,
    content: str | None,
) -> None:
    engine.base.tokenizer.opens = opens
    engine.say = lambda request: said.encode()
    message = chat(make_client(), max_tokens=99)["choices"][0]["message"]
    assert message["content"] == said and "reasoning_content" not in message
    client = make_client(reasoning_parser="think")
    message = chat(client, max_tokens=99)["choices"][0]["message"]
    assert (message.get("reasoning_content"), message["content"]) == (thoughts, content)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks_of(client, PATH, messages=USER, max_tokens=99)]
    assert "".join(delta.get("content", "") for delta in deltas) == (content or "")
    assert "".join(delta.get("reasoning_content", "") for delta in deltas) == (thoughts or "")


@given(
    text=st.lists(st.sampled_from(["<think>", "</think>", " ", "\n", "a", "<", "</t"]), max_size=9).map(
        "".join
    ),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    inside=st.booleans(),
)
def test_thoughts_are_the_same_however_the_text_is_split(text: str, cuts: list[int], inside: bool) -> None:
    marks = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    reader, thoughts, content = ThoughtReader(inside=inside), "", ""
    for piece in [*(text[start:end] for start, end in pairwise(marks)), None]:
        part = reader.push(piece or "", final=piece is None)
        thoughts, content = thoughts + part[0], content + part[1]
    assert (thoughts, content) == ThoughtReader(inside=inside).push(text, final=True)
