"""instructor: objects instead of text, by JSON schema and by tools."""

from __future__ import annotations

from typing import Any, Literal

import instructor
import openai
import pytest
from pydantic import BaseModel, ConfigDict

from tests.clients.running import KEY, Server

QUESTION: Any = [{"role": "user", "content": "Where was Mara Quillon born?"}]


class Birth(BaseModel):
    """The place of a person's birth."""

    # If the schema allowed more keys, so small a model would go on writing keys without end.
    model_config = ConfigDict(extra="forbid")

    town: Literal["Larnavel", "Tarnholm"]
    known: bool


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        ("base-a", instructor.Mode.JSON_SCHEMA),
        ("base-a:pirate", instructor.Mode.JSON_SCHEMA),
        ("caller", instructor.Mode.TOOLS),
        ("caller:pirate", instructor.Mode.TOOLS_STRICT),
    ],
)
def test_an_object_is_what_comes_back(server: Server, model: str, mode: instructor.Mode) -> None:
    with openai.OpenAI(base_url=server.url, api_key=KEY, max_retries=0) as plain:
        client = instructor.from_openai(plain, mode=mode)
        birth = client.chat.completions.create(
            model=model, messages=QUESTION, response_model=Birth, max_retries=0, temperature=0
        )
    assert isinstance(birth, Birth)
