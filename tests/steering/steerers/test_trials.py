"""Which continuations are read, and where each finds its scores. The oracle's tests cover the scores."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from steering.steerers.trials import Trial, _sharing, _wanted

ROWS: list[Any] = [object(), object()]
feeds = st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple)


@st.composite
def some_trials(draw: st.DrawFn) -> list[Trial]:
    found = []
    for feed in draw(st.lists(feeds, min_size=1, max_size=12)):
        row, start = draw(st.sampled_from(ROWS)), draw(st.integers(3, 4))
        last = draw(st.integers(0, 2))
        found.append(Trial(row, start, feed, (*feed[1:], last)))
    return list(dict.fromkeys(found))


@given(some_trials())
def test_every_trial_is_answered_where_its_own_tokens_are_read(trials: list[Trial]) -> None:
    sharing = _sharing(trials)
    assert sorted(map(id, trials)) == sorted(id(trial) for shared in sharing.values() for trial in shared)
    passes = list(sharing)
    # What each position has read: the row, where it began, and the tokens up to it.
    read = [
        (each.state, each.start, each.feed[:end]) for each in passes for end in range(1, len(each.feed) + 1)
    ]
    wanted = iter(_wanted(passes, sharing))
    for each in passes:
        for trial in sharing[each]:
            for place, target in enumerate(trial.targets, 1):
                position, asked = next(wanted)
                assert asked == target
                assert read[position] == (trial.state, trial.start, trial.feed[:place])
    assert next(wanted, None) is None


@given(some_trials())
def test_nothing_is_read_twice_that_another_reads(trials: list[Trial]) -> None:
    passes = list(_sharing(trials))
    for each in passes:
        for other in passes:
            if each is not other and each.state is other.state and each.start == other.start:
                assert other.feed[: len(each.feed)] != each.feed
