"""The counting bridge steers as `rescore` does, and counts the rows on which trials ran."""

from __future__ import annotations

from benchmarks.rescoring import COUNTED, counting, every_candidate
from demo import demo_adapters, demo_models, measure
from steering.adapters import load_adapter
from steering.bridges.table import BRIDGES
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from steering.specs import SteeringSpec


def test_it_steers_as_rescore_does_and_counts_rows() -> None:
    engine = Engine(load_model(demo_models()["base-b"], device="cpu"), EngineConfig(max_num_seqs=4))
    engine.session.attach(load_adapter("forget", demo_adapters()["forget"], device="cpu"))
    asked = measure.questions(1).gone[:1] + measure.questions(1).kept
    expected = measure.answers(engine, asked, (SteeringSpec("forget", bridge="rescore"),))
    counted = []
    for tries_all in (False, True):
        with counting() as bridge:
            if tries_all:
                with every_candidate():
                    measure.answers(engine, asked, (SteeringSpec("forget", bridge=COUNTED),))
            else:
                assert measure.answers(engine, asked, (SteeringSpec("forget", bridge=COUNTED),)) == expected
            counted.append(bridge.rows)
    tokens = sum(len(engine.base.tokenizer(text)["input_ids"]) for text in expected)
    assert 0 < counted[0] < tokens and counted[0] < counted[1]
    assert COUNTED not in BRIDGES
    engine.check_integrity()
