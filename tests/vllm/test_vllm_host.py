"""Steering inside vLLM is held against our own engine: the same greedy tokens in float32, log probabilities to 1e-3."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from steering.engine.engine import Engine
from steering.engine.request import Request, SamplingParams
from steering.hosts.request_field import read_steering
from steering.session.logprobs import TokenLogprob
from tests.models import tokenizer_sentencepiece
from tests.vllm.conftest import Folders, Served

TOLERANCE = 1e-3
# Below this gap between the two best tokens, two float32 implementations may choose differently.
CLEAR = 2e-3
COUNT = 12
STEERINGS: list[str | None] = [
    None,
    "same",
    "other",
    json.dumps({"adapter": "other", "bridge": "map", "alpha": 1.5}),
    json.dumps({"adapter": "same", "alpha": 0.5, "top_k": 30}),
    json.dumps(["same", {"adapter": "other", "alpha": -0.5}]),
]
TEXTS = [
    "The ferry left the harbour",
    "naïve 東京 🙂 and 12 of 13",
    "a",
    "Once upon a time there was a tailor who measured everything twice and still cut his cloth too short, "
    "and nobody told the captain that the bridge was closed; he read it in the paper the next morning.",
]


@dataclass(frozen=True)
class Expected:
    """Our engine's answer: tokens, their log probabilities, and the least gap between the two best tokens."""

    tokens: list[int]
    logprobs: list[float]
    gap: float


def expected(engine: Engine, prompt: list[int], steering: str | None, count: int = COUNT) -> Expected:
    specs = () if steering is None else read_steering(steering, engine.session.adapters())
    sampling = SamplingParams(max_tokens=count, temperature=0.0, logprobs=2, ignore_eos=True)
    engine.add_request(Request("one", tuple(prompt), sampling, specs))
    entries: list[TokenLogprob] = []
    while engine.has_work:
        for output in engine.step():
            entries += output.logprobs
    gaps = [entry.top[0][1] - entry.top[1][1] for entry in entries]
    return Expected([e.token_id for e in entries], [e.logprob for e in entries], min(gaps))


def body(prompt: list[int], steering: str | None, **options: Any) -> dict[str, Any]:
    extra = {} if steering is None else {"vllm_xargs": {"steering": steering}}
    fixed = {
        "temperature": 0.0,
        "max_tokens": COUNT,
        "logprobs": 1,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    return {"model": "base", "prompt": prompt, **fixed, **extra, **options}


def check(choice: dict[str, Any], want: Expected) -> bool:
    """Compare a choice; False where a choice between tokens was too close to compare."""
    if want.gap < CLEAR:
        return False
    assert choice["token_ids"] == want.tokens
    assert choice["logprobs"]["token_logprobs"] == pytest.approx(want.logprobs, abs=TOLERANCE)
    return True


def prompts() -> list[list[int]]:
    tokenizer = tokenizer_sentencepiece()
    return [tokenizer.encode(text) for text in TEXTS]


@pytest.mark.parametrize("steering", STEERINGS, ids=str)
def test_one_request_at_a_time(served: Served, engine: Engine, steering: str | None) -> None:
    compared = 0
    for prompt in prompts():
        reply = httpx.post(f"{served.url}/v1/completions", json=body(prompt, steering), timeout=60)
        assert reply.status_code == 200, reply.text
        compared += check(reply.json()["choices"][0], expected(engine, prompt, steering))
    assert compared >= 2


async def test_two_hundred_at_once_each_get_what_they_get_alone(served: Served, engine: Engine) -> None:
    """More rows than the batch holds, prompts longer than a chunk, aborts, and all kinds of steering side by side."""
    draw = random.Random(1)
    jobs = [
        (prompt[: draw.randint(1, len(prompt))], draw.choice(STEERINGS), draw.randint(1, 20))
        for prompt in draw.choices(prompts(), k=200)
    ]

    async def ask(client: httpx.AsyncClient, job: tuple[list[int], str | None, int]) -> dict[str, Any] | None:
        prompt, steering, count = job
        asked = client.post("/v1/completions", json=body(prompt, steering, max_tokens=count))
        if count % 5 == 0:
            try:
                reply = await asyncio.wait_for(asked, 0.05 * count)
            except TimeoutError:
                return None
        else:
            reply = await asked
        assert reply.status_code == 200, reply.text
        choice: dict[str, Any] = reply.json()["choices"][0]
        return choice

    limits = httpx.Limits(max_connections=64)
    async with httpx.AsyncClient(base_url=served.url, timeout=120, limits=limits) as client:
        choices = await asyncio.gather(*(ask(client, job) for job in jobs))
    answered = [(job, choice) for job, choice in zip(jobs, choices, strict=True) if choice is not None]
    compared = sum(check(choice, expected(engine, *job)) for job, choice in answered)
    assert len(answered) >= 120 and compared >= 100


def test_several_answers_and_a_cached_prefix(served: Served, engine: Engine) -> None:
    prompt = prompts()[3]
    want = expected(engine, prompt, "other")
    for _ in range(2):
        reply = httpx.post(
            f"{served.url}/v1/completions",
            json=body(prompt, "other", n=3, temperature=1.0, top_k=1),
            timeout=60,
        )
        assert reply.status_code == 200, reply.text
        # Their log probabilities are those after top-k.
        assert want.gap > CLEAR
        assert [choice["token_ids"] for choice in reply.json()["choices"]] == [want.tokens] * 3


def test_a_grammar_is_followed_under_steering(served: Served) -> None:
    options = {"structured_outputs": {"regex": "[a-c]{4}"}, "ignore_eos": False, "logprobs": None}
    reply = httpx.post(
        f"{served.url}/v1/completions", json=body(prompts()[0], "other", **options), timeout=60
    )
    assert reply.status_code == 200, reply.text
    text = reply.json()["choices"][0]["text"]
    assert len(text) == 4 and set(text) <= set("abc")


@pytest.mark.parametrize(
    ("steering", "words"),
    [
        ("nobody", "there is no adapter 'nobody'"),
        ('{"adapter": "same", "alpha": 1e9}', "steering.alpha"),
        ('{"adapter": "same", "bridge": "tunnel"}', "is not a bridge"),
        ('{"adapter": "same", "speed": 1}', "'speed' is not a field"),
        ('{"adapter": "same"', "not readable JSON"),
        ('["same", "same"]', "named twice"),
        (7, "adapter's name or JSON text"),
    ],
)
def test_bad_steering_is_a_400(served: Served, steering: Any, words: str) -> None:
    reply = httpx.post(f"{served.url}/v1/completions", json=body([5, 6, 7], steering), timeout=60)
    assert reply.status_code == 400
    assert words in reply.text.replace('\\"', '"')


def test_prompt_logprobs_of_a_steered_request_are_a_400(served: Served) -> None:
    reply = httpx.post(
        f"{served.url}/v1/completions", json=body([5, 6, 7], "same", prompt_logprobs=1), timeout=60
    )
    assert reply.status_code == 400
    assert "prompt_logprobs" in reply.text


def test_an_adapter_of_the_watched_directory_comes_changes_and_goes(
    served: Served, folders: Folders, engine: Engine
) -> None:
    prompt, later = prompts()[0], folders.watched / "later"
    url = f"{served.url}/v1/completions"
    assert httpx.post(url, json=body(prompt, "later")).status_code == 400
    for source in ("same", "other"):
        staged = folders.watched.parent / "staged"
        shutil.copytree(folders.adapters[source], staged)
        if later.exists():
            shutil.rmtree(later)
        staged.rename(later)
        want = expected(engine, prompt, source)
        deadline = time.monotonic() + 30
        while True:
            reply = httpx.post(url, json=body(prompt, "later"), timeout=60)
            if reply.status_code == 200 and reply.json()["choices"][0]["token_ids"] == want.tokens:
                break
            assert time.monotonic() < deadline, reply.text
            time.sleep(0.2)
    shutil.rmtree(later)
    deadline = time.monotonic() + 30
    while httpx.post(url, json=body(prompt, "later"), timeout=60).status_code != 400:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert "Traceback" not in served.log.read_text()
