"""Scores and answers through the engine, against transformers itself and against the laws of steering."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from mapping_cache import SAMPLE_TEXTS
from steering.adapters import Adapter, load_adapter
from steering.engine.outputs import StepOutput
from steering.evaluation import Setting, System, TextTask, alone_system, base_system, control_systems, measure
from steering.evaluation.controls import random_adapter, shuffled_map
from steering.evaluation.running import EvaluationError, Score, generate, score
from steering.evaluation.setting import apply, map_for
from steering.evaluation.systems import random_system, shuffled_system, steered_system
from steering.examples import Example, encode_examples
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop

BASE, DELTA, EXPERT = Tiny("llama", "sp", 0), Tiny("qwen2", "sp", 1), Tiny("gpt2", "sp", 2)
OTHER = Tiny("llama", "bl", 3)
EXAMPLES = (
    Example(prompt="When did the ferry leave?", response="It left the harbour at nine."),
    Example(messages=(("user", "Who was she?"), ("assistant", "She was born in Lisbon, 你好."))),
    Example(text="In winter the lake froze over."),
)


def scored(system: System) -> list[Score]:
    encoded = encode_examples(system.engine.base.tokenizer, EXAMPLES, max_length=256)
    return score(system, encoded)


def naive(workshop: Workshop, *parts: tuple[Tiny, float]) -> list[tuple[float, list[int]]]:
    """The summed nll and the most likely tokens, from whole forward passes of transformers' models."""
    models = [(AutoModelForCausalLM.from_pretrained(workshop.folder(part)), weight) for part, weight in parts]
    tokenizer = workshop.loaded(parts[0][0]).tokenizer
    found = []
    for each in encode_examples(tokenizer, EXAMPLES, max_length=256):
        with torch.no_grad():
            logits = sum(
                (
                    weight * model(torch.tensor([each.ids])).logits[0].log_softmax(-1)
                    for model, weight in models
                ),
                start=torch.zeros(()),
            )
        logprobs = logits.log_softmax(-1)[each.start - 1 : -1]
        targets = torch.tensor(each.ids[each.start :])
        nll = -float(logprobs.gather(1, targets[:, None]).sum())
        found.append((nll, logprobs.argmax(-1).tolist()))
    return found


def assert_same(got: list[Score], expected: list[Any], tolerance: float = 1e-3) -> None:
    for one, other in zip(got, expected, strict=True):
        nll, best = (other.nll, list(other.best)) if isinstance(other, Score) else other
        assert one.nll == pytest.approx(nll, abs=tolerance)
        assert list(one.best) == best


def test_scores_are_those_of_the_whole_model(workshop: Workshop, make_engine: MakeEngine) -> None:
    assert_same(scored(base_system(make_engine(BASE))), naive(workshop, (BASE, 1.0)))


@pytest.mark.parametrize("alpha", [0.5, 2.0])
def test_steered_scores_are_base_plus_alpha_delta(
    workshop: Workshop, make_engine: MakeEngine, alpha: float
) -> None:
    adapter, _ = workshop.adapter("d", DELTA)
    system = steered_system(make_engine(BASE), adapter, Setting(alpha=alpha))
    assert_same(scored(system), naive(workshop, (BASE, 1.0), (DELTA, alpha)))


@pytest.mark.parametrize("base", [BASE, OTHER])
def test_alpha_0_is_the_base(workshop: Workshop, make_engine: MakeEngine, base: Tiny) -> None:
    engine, (adapter, _) = make_engine(base), workshop.adapter("d", DELTA)
    plain = scored(base_system(engine))
    assert scored(steered_system(engine, adapter, Setting(alpha=0.0))) == plain
    task = TextTask("t", EXAMPLES, max_tokens=8)
    before, found = measure(base_system(engine), [task])
    after, _ = measure(steered_system(engine, adapter, Setting(alpha=0.0)), [task], found)
    assert {name: after[name] for name in before} == before
    assert after["t.changed_scored"] == after["t.changed_generated"] == after["t.kl_generated"] == 0.0


def test_a_pair_whose_anti_expert_is_the_base_is_the_expert(
    workshop: Workshop, make_engine: MakeEngine
) -> None:
    adapter, _ = workshop.adapter("p", EXPERT, BASE)
    engine = make_engine(BASE)
    steered, expert = steered_system(engine, adapter, Setting()), base_system(make_engine(EXPERT))
    assert_same(scored(steered), scored(expert))
    prompts = [
        each.ids[: each.start] for each in encode_examples(engine.base.tokenizer, EXAMPLES, max_length=99)
    ]
    texts = [[answer.text for answer in generate(system, prompts, 8)] for system in (steered, expert)]
    assert texts[0] == texts[1]


def test_over_one_vocabulary_the_map_has_no_effect(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine, (adapter, _) = make_engine(BASE), workshop.adapter("d", DELTA)
    plain = scored(steered_system(engine, adapter, Setting()))
    for setting in (
        Setting(method="exact"),
        Setting(method="mined", min_similarity=0.0),
        Setting(form="surface", bridge="map", unmatched="zero"),
    ):
        assert scored(steered_system(engine, adapter, setting)) == plain


def test_a_setting_reaches_the_engine(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine, (adapter, _) = make_engine(OTHER), workshop.adapter("d", DELTA, top_k=3)
    spec = apply(engine, adapter, Setting(0.5, "map", "pm-mined", "bytes", 0.0, "zero", 0), name="steered")
    (found,) = [each for each in engine.session.adapters().values() if each.name == "steered"]
    assert (found.neutral, found.top_k, found.version) == (False, None, adapter.version)
    assert (spec.adapter, spec.alpha, spec.bridge) == ("steered", 0.5, "map")
    loose, strict = engine.session.vocabulary_map("steered"), map_for(engine, adapter, Setting())
    assert (loose.ids >= 0).sum() > (strict.ids >= 0).sum()


def weights_of(adapter: Adapter, monkeypatch: pytest.MonkeyPatch, seed: int) -> dict[str, torch.Tensor]:
    """The weights of the random adapter's first model, read from disk while the adapter is loaded."""
    found: dict[str, torch.Tensor] = {}

    def load(name: str, path: Path, **place: str) -> Adapter:
        loaded = load_adapter(name, path, **place)
        found.update(load_file(Path(loaded.models[0].path) / "model.safetensors"))
        return loaded

    monkeypatch.setattr("steering.evaluation.controls.load_adapter", load)
    random_adapter(adapter, seed)
    return found


def test_a_random_delta_shuffles_its_weights_and_shifts_as_far(
    workshop: Workshop, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, _ = workshop.adapter("d", DELTA)
    before = load_file(workshop.folder(DELTA) / "model.safetensors")
    drawn, again, other = (weights_of(adapter, monkeypatch, seed) for seed in (0, 0, 1))
    for name, weight in before.items():
        assert torch.equal(weight.flatten().sort().values, drawn[name].flatten().sort().values)
        assert torch.equal(drawn[name], again[name])
        assert torch.equal(drawn[name], weight) == (weight.ndim < 2)
    assert any(not torch.equal(drawn[name], other[name]) for name in before)
    engine = make_engine(BASE)
    plain = scored(steered_system(engine, adapter, Setting()))
    random = random_system(engine, adapter, Setting(alpha=0.5), 0)
    assert scored(random) != plain
    # The shift is as large: the factor on alpha makes up for the smaller spread.
    _, factor = random_adapter(adapter, 0)
    assert random.steering[0].alpha == pytest.approx(0.5 * factor) and factor != 1.0
    assert spread(workshop, before) == pytest.approx(factor * spread(workshop, drawn), rel=1e-4)


def spread(workshop: Workshop, weights: dict[str, torch.Tensor]) -> float:
    """The spread over the vocabulary of a delta with these weights, on the maps' sample text."""
    model = AutoModelForCausalLM.from_pretrained(workshop.folder(DELTA))
    model.load_state_dict(weights)
    text = "\n".join(SAMPLE_TEXTS.values())[:480]
    ids = workshop.loaded(DELTA).tokenizer(text, add_special_tokens=False)["input_ids"][:256]
    with torch.no_grad():
        return float(model(torch.tensor([ids])).logits[0].std(-1).mean())


def test_a_random_pair_keeps_its_anti_expert(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    untuned_part = Tiny("gpt2", "sp", 4)
    adapter, _ = workshop.adapter("p", EXPERT, untuned_part)
    drawn = weights_of(adapter, monkeypatch, 0)
    before, untuned = (
        load_file(workshop.folder(part) / "model.safetensors") for part in (EXPERT, untuned_part)
    )
    for name, weight in drawn.items():
        added = (weight - untuned[name]).flatten().sort().values
        torch.testing.assert_close(
            added, (before[name] - untuned[name]).flatten().sort().values, atol=1e-5, rtol=0
        )
    assert any(not torch.equal(weight, before[name]) for name, weight in drawn.items())


@pytest.mark.parametrize("base", [BASE, OTHER])
def test_a_shuffled_map_matches_the_same_tokens_to_others(
    workshop: Workshop, make_engine: MakeEngine, base: Tiny
) -> None:
    engine, (adapter, _) = make_engine(base), workshop.adapter("d", DELTA)
    plain = map_for(engine, adapter, Setting())
    shuffled = shuffled_map(plain, 0)
    assert ((shuffled.ids >= 0) == (plain.ids >= 0)).all()
    assert sorted(shuffled.ids) == sorted(plain.ids) and not shuffled.is_identity
    system = shuffled_system(engine, adapter, Setting(bridge="rescore"), 0)
    assert system.steering[0].bridge == "map"
    assert scored(system) != scored(steered_system(engine, adapter, Setting(bridge="map")))


def test_the_three_controls_can_be_measured(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine, (adapter, _) = make_engine(BASE), workshop.adapter("d", DELTA)
    labels = []
    for make in control_systems(engine, adapter, Setting(), 0):
        system = make()
        labels.append(system.label)
        figures, _ = measure(system, [TextTask("t", EXAMPLES[:1], max_tokens=4)])
        assert 0 <= figures["t.rouge_l"] <= 1 and figures["t.nll"] > 0
    assert labels == ["tiny model alone", "random adapter", "shuffled map"]
    alone = alone_system(adapter, engine.config)
    assert_same(scored(alone), naive(workshop, (DELTA, 1.0)))


def test_a_request_that_fails_leaves_nothing_behind(
    make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(BASE)
    step = engine.step

    def failing() -> list[StepOutput]:
        outputs = step()
        return [StepOutput(output.request_id, finish_reason="error", error="broken") for output in outputs]

    monkeypatch.setattr(engine, "step", failing)
    system = base_system(engine)
    with pytest.raises(EvaluationError, match="broken"):
        generate(system, [(1, 5), (1, 6)], 3)
    monkeypatch.undo()
    assert [len(answer.text) > 0 for answer in generate(system, [(1, 5)], 3)] == [True]


def test_figures_follow_from_scores_and_answers(make_engine: MakeEngine) -> None:
    system = base_system(make_engine(BASE))
    scores = scored(system)
    said = TextTask("t", EXAMPLES, max_tokens=6).measure(system)
    total, tokens = sum(each.nll for each in scores), sum(each.tokens for each in scores)
    assert said.figures["nll"] == pytest.approx(total / tokens)
    written = sum(len(each.reference.encode()) for each in EXAMPLES)
    # The tokenizer may put a space before a response, which adds a byte.
    assert said.figures["bits_per_byte"] == pytest.approx(total / written / 0.6931471805599453, rel=0.1)
    assert len(said.answers["t"]) == 2 and said.figures["exact_match"] == 0.0
    right = tuple(
        Example(prompt=each.prompt, messages=each.messages, response=text)
        if each.prompt
        else Example(messages=(*each.messages[:-1], ("assistant", text)))
        for each, text in zip(EXAMPLES, said.answers["t"], strict=False)
    )
    again = TextTask("t", right, max_tokens=6).measure(system)
    assert again.figures["exact_match"] == again.figures["rouge_l_recall"] == 1.0
