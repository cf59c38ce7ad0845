"""The scheduler's policy, without a model: who runs, in what order, and what happens when pages run out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from steering.engine.request import Request, SamplingParams
from steering.engine.scheduler import Scheduler
from steering.engine.sequence import SequenceState
from steering.model.pages import PageAllocator
from tests.steering.support import new_sequence

PAGE = 4


def sequence(name: str, length: int) -> SequenceState:
    return new_sequence(Request(name, tuple(range(length)), SamplingParams(seed=0)))


def scheduler(*, pages: int = 16, seqs: int = 4, tokens: int = 8) -> Scheduler:
    return Scheduler(PageAllocator(pages, PAGE), seqs, tokens)


def names(policy: Scheduler) -> list[tuple[str, int, int]]:
    """One step: what was scheduled, committed; a finished prompt or a decode gains a token."""
    chunks = policy.schedule()
    seen = [(c.sequence.request.request_id, c.start, c.count) for c in chunks]
    for chunk in chunks:
        ends = chunk.is_last
        policy.commit(chunk)
        if ends:
            chunk.sequence.tokens.append(0)
    return seen


def test_a_long_prompt_goes_in_chunks() -> None:
    policy = scheduler()
    policy.add(sequence("long", 18))
    assert [names(policy) for _ in range(4)] == [
        [("long", 0, 8)],
        [("long", 8, 8)],
        [("long", 16, 2)],
        [("long", 18, 1)],
    ]


def test_a_decode_is_never_starved_by_a_prompt() -> None:
    policy = scheduler()
    policy.add(sequence("short", 3))
    names(policy)
    policy.add(sequence("long", 30))
    for step in range(3):
        assert names(policy)[0] == ("short", 3 + step, 1)


def test_no_more_than_max_num_seqs_run() -> None:
    policy = scheduler(seqs=2)
    for name in "abc":
        policy.add(sequence(name, 2))
    names(policy)
    assert [s.request.request_id for s in policy.running] == ["a", "b"]
    policy.finish(policy.running[0])
    names(policy)
    assert [s.request.request_id for s in policy.running] == ["b", "c"]


def test_the_youngest_is_preempted_and_comes_back_first() -> None:
    policy = scheduler(pages=4, tokens=16)
    for name in "ab":
        policy.add(sequence(name, 7))
    policy.add(sequence("c", 1))
    names(policy)  # a and b fill the pool
    names(policy)
    names(policy)  # a needs a third page
    assert [s.request.request_id for s in policy.running] == ["a"]
    assert [s.request.request_id for s in policy.waiting] == ["b", "c"]
    assert policy.preemptions == 1
    assert policy.waiting[0].computed == 0
    assert policy.waiting[0].pages == []
    policy.finish(policy.running[0])
    assert names(policy)[0] == ("b", 0, 9)


@given(
    st.lists(st.tuples(st.integers(1, 24), st.integers(1, 12)), min_size=1, max_size=8),
    st.integers(9, 20),
    st.integers(1, 5),
)
@settings(max_examples=100, deadline=None)
def test_everything_ends_and_every_page_comes_back(
    lengths: list[tuple[int, int]], pages: int, seqs: int
) -> None:
    policy = scheduler(pages=pages, seqs=seqs, tokens=8)
    goals = {}
    for number, (prompt, generated) in enumerate(lengths):
        policy.add(sequence(str(number), prompt))
        goals[str(number)] = prompt + generated
    for _ in range(5000):
        if not policy.has_work:
            break
        assert names(policy), "work, but nothing scheduled"
        for item in [s for s in policy.running if len(s.tokens) >= goals[s.request.request_id]]:
            policy.finish(item)
        policy.allocator.check_integrity()
    assert not policy.has_work
    assert policy.allocator.used == 0


def test_scoring_a_long_prompt_holds_up_nobody_who_generates() -> None:
    policy = Scheduler(PageAllocator(64, PAGE), 4, 16, max_scored=4)
    for name in ("first", "second"):
        params = SamplingParams(seed=0, max_tokens=0, prompt_logprobs=1)
        policy.add(new_sequence(Request(name, tuple(range(20)), params)))
    policy.add(sequence("chat", 6))
    assert names(policy) == [("first", 0, 4), ("chat", 0, 6)]
    assert sum(count for name, _, count in names(policy) if name != "chat") <= 4
