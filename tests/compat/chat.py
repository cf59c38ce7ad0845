"""Messages, chat templates and thoughts."""

from __future__ import annotations

from typing import Any

from tests.compat.feature import CHAT, Feature
from tests.server.tools.structured import USER

PART = {"type": "text", "text": "hi"}
OPEN: list[dict[str, Any]] = [*USER, {"role": "assistant", "content": "Well, "}]


def said(**fields: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "hi", **fields}]}


MESSAGES = [
    Feature(
        "text in parts",
        "vLLM, llama.cpp, SGLang",
        CHAT,
        said(content=[PART, PART]),
        lambda a: "hihi" in a.prompt,
    ),
    Feature(
        "the role `developer`",
        "vLLM, llama.cpp",
        CHAT,
        {"messages": [{"role": "developer", "content": "x"}, *USER]},
    ),
    Feature("`name` of a message", "vLLM", CHAT, said(name="Mara"), lambda a: "[Mara]" in a.prompt),
    Feature(
        "`reasoning_content` in past turns",
        "vLLM, llama.cpp, SGLang",
        CHAT,
        {"messages": [*USER, {"role": "assistant", "content": "x", "reasoning_content": "hm"}, *USER]},
        lambda a: "[hm]" in a.prompt,
    ),
    Feature(
        "thoughts apart from the text",
        "vLLM, llama.cpp, SGLang",
        CHAT,
        {},
        lambda a: (a.said["reasoning_content"], a.said["content"]) == ("hm", "yes"),
        says="<think>hm</think>yes",
    ),
    Feature(
        "`continue_final_message`",
        "vLLM, SGLang",
        CHAT,
        {"messages": OPEN, "continue_final_message": True},
        lambda a: a.prompt.endswith("Well, "),
    ),
    Feature("`add_generation_prompt`", "vLLM", CHAT, {"add_generation_prompt": False}),
    Feature(
        "`echo` in chat",
        "vLLM",
        CHAT,
        {"messages": OPEN, "continue_final_message": True, "echo": True},
        lambda a: a.said["content"] == "Well, hello world",
    ),
    Feature(
        "`chat_template_kwargs`",
        "vLLM, llama.cpp, SGLang",
        CHAT,
        {"chat_template_kwargs": {"enable_thinking": False}},
        lambda a: "enable_thinking=False" in a.prompt,
    ),
    Feature(
        "`documents`",
        "vLLM",
        CHAT,
        {"documents": [{"text": "about it"}]},
        lambda a: "documents=about it" in a.prompt,
    ),
    Feature(
        "`chat_template`",
        "vLLM",
        CHAT,
        {"chat_template": "x"},
        refused="no template comes from a request",
        param="chat_template",
    ),
    Feature(
        "images and sound",
        "vLLM, llama.cpp, SGLang",
        CHAT,
        said(content=[{"type": "image_url", "image_url": {"url": "x"}}]),
        refused="bases read text",
        param="messages",
    ),
    Feature(
        "`top_logprobs`",
        "vLLM, llama.cpp, SGLang",
        CHAT,
        {"logprobs": True, "top_logprobs": 2},
        lambda a: len(a.choice["logprobs"]["content"][0]["top_logprobs"]) == 2,
    ),
    Feature(
        "`stream_options` that ask for nothing", "vLLM", CHAT, {"stream_options": {"include_usage": False}}
    ),
    Feature(
        "`include_usage`, `continuous_usage_stats`",
        "vLLM, SGLang",
        CHAT,
        {"stream": True, "stream_options": {"include_usage": True, "continuous_usage_stats": True}},
        lambda a: all(chunk["usage"] for chunk in a.body),
    ),
    Feature(
        "`max_tokens` beside `max_completion_tokens`",
        "vLLM",
        CHAT,
        {"max_tokens": 2, "max_completion_tokens": 2},
    ),
]
ROUTES = [
    Feature(
        "`/v1/messages`", "vLLM, llama.cpp, SGLang", "/v1/messages", {}, lambda a: a.body["type"] == "message"
    ),
    Feature(
        "`/v1/messages`, streamed",
        "vLLM, llama.cpp",
        "/v1/messages",
        {"stream": True},
        lambda a: a.body[-1]["type"] == "message_stop",
    ),
    Feature(
        "`/v1/messages/count_tokens`",
        "vLLM, llama.cpp",
        "/v1/messages/count_tokens",
        {"model": "base", "messages": USER},
        lambda a: a.body["input_tokens"] > 2,
    ),
    Feature(
        "`/v1/responses`", "vLLM, llama.cpp", "/v1/responses", {}, lambda a: a.body["status"] == "completed"
    ),
    Feature(
        "`/v1/responses`, streamed",
        "vLLM, llama.cpp",
        "/v1/responses",
        {"stream": True},
        lambda a: a.body[-1]["type"] == "response.completed",
    ),
    Feature(
        "`previous_response_id`",
        "vLLM",
        "/v1/responses",
        {"previous_response_id": "resp_1"},
        refused="nothing is stored",
        param="previous_response_id",
    ),
    Feature(
        "`/tokenize` of a text",
        "vLLM, llama.cpp",
        "/tokenize",
        {"prompt": "hi"},
        lambda a: a.body["count"] == 2,
    ),
    Feature(
        "`/tokenize` of a conversation",
        "vLLM",
        "/tokenize",
        {"messages": USER},
        lambda a: a.body["count"] > 2,
    ),
    Feature(
        "`/detokenize`",
        "vLLM, llama.cpp",
        "/detokenize",
        {"tokens": [104]},
        lambda a: a.body["prompt"] == "h",
    ),
]
