"""Several answers to one prompt compute it once: they wait for the first of them, and then share its pages."""

from __future__ import annotations

from steering.engine.request import Request, SamplingParams
from steering.engine.scheduler import Scheduler
from steering.engine.sequence import SequenceState
from steering.model.pages import PageAllocator
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, drain, new_sequence, request, run_alone

PAGE = 4
PROMPT = tuple(range(20, 42))


def siblings(
    count: int, prompt: tuple[int, ...] = PROMPT, prompt_logprobs: int | None = None
) -> list[SequenceState]:
    return [
        new_sequence(Request(f"{i}", prompt, SamplingParams(seed=i, prompt_logprobs=prompt_logprobs)))
        for i in range(count)
    ]


def step(policy: Scheduler) -> list[tuple[str, int, int]]:
    chunks = policy.schedule()
    for chunk in chunks:
        ends = chunk.is_last
        policy.commit(chunk)
        if ends:
            chunk.sequence.tokens.append(0)
    return [(chunk.sequence.request.request_id, chunk.start, chunk.count) for chunk in chunks]


def test_only_the_first_computes_the_prompt() -> None:
    policy = Scheduler(PageAllocator(64, PAGE, prefix_caching=True), 8, 16)
    for sequence in siblings(3):
        policy.add(sequence)
    assert step(policy) == [("0", 0, 16)]
    # What is on whole pages is shared as soon as it is there; the rest is everyone's own.
    assert step(policy) == [("0", 16, 6)]
    assert step(policy) == [("0", 22, 1), ("1", 20, 2), ("2", 20, 2)]


def test_others_do_not_wait_behind_them() -> None:
    policy = Scheduler(PageAllocator(64, PAGE, prefix_caching=True), 8, 16)
    first, second = siblings(2)
    stranger = new_sequence(Request("stranger", tuple(range(5)), SamplingParams(seed=9)))
    for sequence in (first, second, stranger):
        policy.add(sequence)
    step(policy)
    assert step(policy) == [("0", 16, 6), ("stranger", 0, 5)]


def test_nobody_waits_where_nothing_can_be_shared() -> None:
    everyone = [("0", 0, 3), ("1", 0, 3)]
    short = Scheduler(PageAllocator(64, PAGE, prefix_caching=True), 8, 64)
    scoring = Scheduler(PageAllocator(64, PAGE, prefix_caching=True), 8, 64)
    uncached = Scheduler(PageAllocator(64, PAGE, prefix_caching=False), 8, 64)
    for policy, made in (
        (short, siblings(2, (1, 2, 3))),
        (scoring, siblings(2, prompt_logprobs=0)),
        (uncached, siblings(2)),
    ):
        for sequence in made:
            policy.add(sequence)
    assert step(short) == everyone
    assert step(scoring) == step(uncached) == [("0", 0, 22), ("1", 0, 22)]


def test_answers_are_as_alone_and_pages_are_shared(workshop: Workshop, make_engine: MakeEngine) -> None:
    base = Tiny("llama", "sp", seed=3)
    adapter = workshop.adapter("own", Tiny("mistral", "sp", seed=33))[0]
    answers = [request(str(i), PROMPT, "own", temperature=1.0, seed=i) for i in range(4)]
    alone = [run_alone(make_engine(base, adapter), one).tokens for one in answers]
    engine = make_engine(base, adapter)
    for one in answers:
        engine.add_request(one)
    results = drain(engine, {})
    assert [results[one.request_id].tokens for one in answers] == alone
    # Three times the five whole pages before the prompt's last token.
    assert engine.stats().prefix_cache_hits == 3 * 5 * PAGE
