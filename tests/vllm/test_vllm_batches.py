"""The processor under any change of vLLM's batch: rows added, removed, moved, swapped, preempted and resumed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate, MoveDirectionality

from steering.hosts.request_field import read_steering
from steering.hosts.vllm import Steering
from steering.session import Span, SteeringSession
from tests.models import tokenizer_sentencepiece
from tests.vllm.conftest import Folders

STEERINGS = [None, "same", "other", '["same", {"adapter": "other", "alpha": -0.5}]']


class Request:
    """As vLLM keeps it: one object for its parameters, and one list of its output ids."""

    def __init__(self, number: int, draw: random.Random, width: int) -> None:
        steering = STEERINGS[number % len(STEERINGS)]
        self.steering = steering
        self.params = SamplingParams(extra_args=None if steering is None else {"steering": steering})
        self.prompt = [draw.randrange(3, width) for _ in range(draw.randint(1, 6))]
        self.output: list[int] = []


def config(folders: Folders, **changes: Any) -> Any:
    width = len(tokenizer_sentencepiece())
    model = SimpleNamespace(
        tokenizer=str(folders.base),
        get_vocab_size=lambda: width,
        hf_text_config=SimpleNamespace(eos_token_id=2),
        logits_processors=["steering.hosts.vllm:Steering"],
        logprobs_mode="processed_logprobs",
        **changes,
    )
    return SimpleNamespace(model_config=model, scheduler_config=SimpleNamespace(async_scheduling=False))


@pytest.fixture
def processor(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steering]:
    named = ",".join(f"{name}={folder}" for name, folder in folders.adapters.items())
    monkeypatch.setenv("TRIMTAB_ADAPTERS", named)
    made = Steering(config(folders), torch.device("cpu"), False)
    yield made
    session = made._session
    assert session is not None
    session.check_integrity()


def alone(session: SteeringSession, request: Request, logits: torch.Tensor) -> torch.Tensor:
    """What a row of its own gives."""
    if request.steering is None:
        return logits
    tokens = request.prompt + request.output
    row = session.open(tokens, read_steering(request.steering, session.adapters()))
    found = session.steer([Span(row, range(len(tokens), len(tokens) + 1))], logits[None]).steered[0]
    session.close(row)
    return found


@pytest.mark.parametrize("seed", range(6))
def test_every_row_gets_what_it_gets_alone(processor: Steering, seed: int) -> None:
    draw, width = random.Random(seed), len(tokenizer_sentencepiece())
    session = processor._session
    assert session is not None
    batch: dict[int, Request] = {}
    preempted: list[Request] = []
    made = 0
    for _ in range(40):
        removed = [index for index in list(batch) if draw.random() < 0.15]
        for index in removed:
            gone = batch.pop(index)
            if draw.random() < 0.6:
                preempted.append(gone)
        added = []
        for _ in range(draw.randint(0, 2)):
            free = next(index for index in range(100) if index not in batch)
            if preempted and draw.random() < 0.7:
                request = preempted.pop(draw.randrange(len(preempted)))
            else:
                request, made = Request(made, draw, width), made + 1
            batch[free] = request
            added.append((free, request.params, request.prompt, request.output))
        moved = []
        # vLLM closes gaps by moving the last row, and reorders rows by swapping them.
        while batch and max(batch) >= len(batch):
            source, target = max(batch), next(index for index in range(100) if index not in batch)
            batch[target] = batch.pop(source)
            moved.append((source, target, MoveDirectionality.UNIDIRECTIONAL))
        if len(batch) > 1 and draw.random() < 0.5:
            one, other = draw.sample(sorted(batch), 2)
            batch[one], batch[other] = batch[other], batch[one]
            moved.append((one, other, MoveDirectionality.SWAP))
        changed = removed or added or moved
        update = BatchUpdate(len(batch), sorted(removed, reverse=True), added, moved) if changed else None
        processor.update_state(update)
        if not batch:
            continue
        logits = torch.randn(
            len(batch), width, generator=torch.Generator().manual_seed(draw.randrange(10**6))
        )
        want = torch.stack([alone(session, batch[index], logits[index]) for index in range(len(batch))])
        found = processor.apply(logits.clone())
        torch.testing.assert_close(found, want, atol=1e-4, rtol=0)
        for index, request in batch.items():
            request.output.append(int(found[index].argmax()))


def test_tokens_that_vllm_has_not_filled_in_are_refused(processor: Steering) -> None:
    request = Request(1, random.Random(0), 300)
    processor.update_state(BatchUpdate(1, [], [(0, request.params, request.prompt, request.output)], []))
    request.output.append(-1)
    with pytest.raises(RuntimeError, match="--no-async-scheduling"):
        processor.apply(torch.zeros(1, len(tokenizer_sentencepiece())))


def test_async_scheduling_needs_the_flag(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIMTAB_ADAPTERS", f"same={folders.adapters['same']}")
    settings = config(folders)
    settings.scheduler_config.async_scheduling = True
    settings.model_config.logits_processors = None
    with pytest.raises(ValueError, match=r"--logits-processors steering\.hosts\.vllm:Steering"):
        Steering(settings, torch.device("cpu"), False)


def test_named_twice_it_steers_once(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the entry point, which every environment with vLLM finds, and by the command line."""
    monkeypatch.setenv("TRIMTAB_ADAPTERS", f"same={folders.adapters['same']}")
    settings = config(folders)
    first, second = (Steering(settings, torch.device("cpu"), False) for _ in range(2))
    assert first._session is not None and second._session is None


def test_without_adapters_it_does_nothing(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRIMTAB_ADAPTERS", raising=False)
    made = Steering(config(folders), torch.device("cpu"), False)
    logits = torch.randn(2, 5)
    made.update_state(None)
    assert torch.equal(made.apply(logits.clone()), logits)
