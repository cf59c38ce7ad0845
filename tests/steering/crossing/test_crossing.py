"""Adapters with one tokenizer have one crossing to a base, which is gone with the last of them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

import pytest
from tokenizers import Tokenizer

from mapping_cache import load_or_build
from steering.crossing import encoder
from steering.crossing.crossing import Crossing, Crossings
from steering.crossing.history import SharedHistory, TextHistory
from steering.model.loading import load_model
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run, run_alone

BASE = Tiny("qwen2", "sp", seed=1)
FIRST, SECOND = Tiny("llama", "bl", seed=2), Tiny("llama", "bl", seed=3)


def test_adapters_with_one_tokenizer_share_it(workshop: Workshop) -> None:
    base = workshop.loaded(BASE)
    first, second = (workshop.adapter(str(tiny), tiny)[0].models[0] for tiny in (FIRST, SECOND))
    other = workshop.adapter("other", Tiny("llama", "sp", seed=4))[0].models[0]
    assert first is not second
    crossings = Crossings(base.vocabulary, base.device)
    crossing = crossings.to(first, load_or_build(base.vocabulary, first.vocabulary))
    assert isinstance(crossing.new_history(), TextHistory)
    assert crossings.to(second, load_or_build(base.vocabulary, second.vocabulary)) is crossing
    same = crossings.to(other, load_or_build(base.vocabulary, other.vocabulary))
    assert same.by_text is None
    assert isinstance(same.new_history(), SharedHistory)


def test_another_tokenizer_of_the_same_vocabulary_is_another_crossing(workshop: Workshop) -> None:
    base = workshop.loaded(BASE)
    # Each read for itself: their merges, which a map's fingerprint does not see, could differ.
    first, second = (load_model(workshop.folder(tiny), device="cpu") for tiny in (FIRST, SECOND))
    found = load_or_build(base.vocabulary, first.vocabulary)
    assert found == load_or_build(base.vocabulary, second.vocabulary)
    crossings = Crossings(base.vocabulary, base.device)
    one, other = crossings.to(first, found), crossings.to(second, found)
    assert one is not other


def test_another_map_is_another_crossing(workshop: Workshop) -> None:
    base = workshop.loaded(BASE)
    tiny = workshop.adapter("tab", FIRST)[0].models[0]
    crossings = Crossings(base.vocabulary, base.device)
    found = load_or_build(base.vocabulary, tiny.vocabulary)
    loose = load_or_build(base.vocabulary, tiny.vocabulary, min_similarity=0.0)
    # One that somebody changed, and called as before.
    ids = found.ids.copy()
    ids[:] = -1
    changed = replace(found, ids=ids)
    made: list[Crossing] = [crossings.to(tiny, each) for each in (found, loose, changed)]
    assert len({id(each) for each in made}) == 3
    assert made[1].vocabulary_map == loose
    assert not len(made[2].tensors.columns)


def test_adapters_that_share_it_steer_as_each_does_alone(workshop: Workshop, make_engine: MakeEngine) -> None:
    adapters = [workshop.adapter(str(tiny.seed), tiny)[0] for tiny in (FIRST, SECOND)]
    engine = make_engine(BASE, *adapters)
    requests = [
        request(adapter.name, [5, 6, 7, 8], SteeringSpec(adapter.name, bridge="rescore"), count=10)
        for adapter in adapters
    ]
    together = run(engine, requests)
    for adapter, one in zip(adapters, requests, strict=True):
        alone = run_alone(make_engine(BASE, adapter), one)
        assert together[one.request_id].tokens == alone.tokens
        assert_close(together[one.request_id].logprobs, alone.logprobs)


def test_it_goes_with_its_last_adapter(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine = make_engine(BASE)
    first, second = (
        engine.session.prepare(workshop.adapter(str(tiny.seed), tiny)[0]) for tiny in (FIRST, SECOND)
    )
    for steerer in (first, second):
        engine.session.install(steerer)
    crossing = weakref.ref(first.crossing)
    names = [first.adapter.name, second.adapter.name]
    del first, second, steerer
    engine.session.detach(names[0])
    gc.collect()
    assert crossing() is not None
    engine.session.detach(names[1])
    gc.collect()
    assert crossing() is None


def test_encoders_of_one_tokenizer_share_its_copy(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[str] = []

    class Counted:
        @staticmethod
        def from_str(text: str) -> Tokenizer:
            copies.append(text)
            return Tokenizer.from_str(text)

    monkeypatch.setattr(encoder, "Tokenizer", Counted)
    first, second = (load_model(workshop.folder(tiny), device="cpu") for tiny in (FIRST, SECOND))
    one, again = (encoder.SteeringEncoder(first.tokenizer, first.vocabulary) for _ in range(2))
    assert one.encode("the ferry") == again.encode("the ferry")
    assert len(copies) == 1
    encoder.SteeringEncoder(second.tokenizer, second.vocabulary)
    assert len(copies) == 2
