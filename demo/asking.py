"""Asks an engine questions."""

from __future__ import annotations

from collections.abc import Sequence

from steering.engine.engine import Engine
from steering.engine.request import Request, SamplingParams
from steering.requests import run_requests
from steering.specs import SteeringSpec


def ask(
    engine: Engine,
    questions: Sequence[str],
    steering: tuple[SteeringSpec, ...] = (),
    *,
    system: str = "",
    max_tokens: int,
) -> list[str]:
    """The engine's greedy answers, one for each question. Raises RuntimeError if a request fails."""
    tokenizer = engine.base.tokenizer
    head = [{"role": "system", "content": system}] if system else []
    sampling = SamplingParams(max_tokens=max_tokens, temperature=0.0)
    requests = []
    for index, question in enumerate(questions):
        messages = [*head, {"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        ids = tuple(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        requests.append(Request(str(index), ids, sampling, steering))
    return run_requests(
        engine, requests, lambda _, result: str(tokenizer.decode(result.tokens, skip_special_tokens=True))
    )
