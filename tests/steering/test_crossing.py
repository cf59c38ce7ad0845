"""Adapters with one tokenizer have one crossing to a base, which is gone with the last of them."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace

from mapping_cache import load_or_build
from steering.crossing import Crossing, Crossings
from steering.history import SharedHistory, TextHistory
from tests.steering.support import Tiny, Workshop

BASE = Tiny("qwen2", "sp", seed=1)


def test_adapters_with_one_tokenizer_share_it(workshop: Workshop) -> None:
    base = workshop.loaded(BASE)
    first = workshop.adapter("first", Tiny("llama", "bl", seed=2))[0].models[0]
    second = workshop.adapter("second", Tiny("llama", "bl", seed=3))[0].models[0]
    other = workshop.adapter("other", Tiny("llama", "sp", seed=4))[0].models[0]
    assert first is not second
    assert first.tokenizer is second.tokenizer
    crossings = Crossings(base)
    across = load_or_build(base.vocabulary, first.vocabulary)
    crossing = crossings.to(first, across)
    assert isinstance(crossing.new_history(), TextHistory)
    assert crossings.to(second, load_or_build(base.vocabulary, second.vocabulary)) is crossing
    same = crossings.to(other, load_or_build(base.vocabulary, other.vocabulary))
    assert same.by_text is None
    assert isinstance(same.new_history(), SharedHistory)


def test_another_map_is_another_crossing(workshop: Workshop) -> None:
    base = workshop.loaded(BASE)
    tiny = workshop.adapter("tab", Tiny("llama", "bl", seed=2))[0].models[0]
    crossings = Crossings(base)
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


def test_it_goes_with_its_last_adapter(workshop: Workshop) -> None:
    base = workshop.loaded(BASE)
    tiny = workshop.adapter("tab", Tiny("llama", "bl", seed=2))[0].models[0]
    crossings = Crossings(base)
    kept = crossings.to(tiny, load_or_build(base.vocabulary, tiny.vocabulary))
    gone = weakref.ref(kept)
    del kept
    gc.collect()
    assert gone() is None
