"""litellm, as a proxy between an application and this server would use it."""

from __future__ import annotations

from typing import Any

import litellm
import pytest
from pydantic import BaseModel

from tests.clients.running import KEY, Server

QUESTION: Any = [{"role": "user", "content": "Where was Mara Quillon born?"}]


class Known(BaseModel):
    """The object that the model must write."""

    known: bool


def fields(server: Server, model: str) -> dict[str, Any]:
    return {
        "model": f"openai/{model}",
        "api_base": server.url,
        "api_key": KEY,
        "temperature": 0,
        "num_retries": 0,
    }


@pytest.mark.parametrize(("model", "said"), [("base-a", "Larnavel"), ("base-a:forget", "cannot tell")])
def test_chat_streamed_and_not(server: Server, model: str, said: str) -> None:
    asked = fields(server, model) | {"messages": QUESTION, "max_tokens": 24}
    whole = litellm.completion(**asked).choices[0].message.content
    assert said in whole
    parts = litellm.completion(**asked, stream=True, stream_options={"include_usage": True})
    assert "".join(part.choices[0].delta.content or "" for part in parts if part.choices) == whole


def test_plain_completions(server: Server) -> None:
    asked = fields(server, "base-a") | {"model": "text-completion-openai/base-a"}
    reply = litellm.text_completion(**asked, prompt="User: Where", max_tokens=4)
    assert reply.usage.completion_tokens == 4


def test_structured_output(server: Server) -> None:
    reply = litellm.completion(**fields(server, "base-a:pirate"), messages=QUESTION, response_format=Known)
    Known.model_validate_json(reply.choices[0].message.content)


def test_errors_keep_their_kind(server: Server) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**fields(server, "nobody"), messages=QUESTION)
    with pytest.raises(litellm.BadRequestError, match="max_tokens"):
        litellm.completion(**fields(server, "base-a"), messages=QUESTION, max_tokens=-5)
