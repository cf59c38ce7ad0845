"""The objectives against their formulas, and a delta trained end to end on a tiny random base."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo import vocabularies
from demo.build import tokenizer_text
from steering.adapters import load_adapter
from steering.training import (
    Batch,
    DeltaConfig,
    ObjectiveWeights,
    OptimiserConfig,
    TrainingDivergedError,
    TrainingExample,
    train_delta,
)
from steering.training.loop import learning_rate_factor, optimise
from steering.training.objectives import objective_loss, steered_logprobs


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return vocabularies.byte_level(tokenizer_text(0)[:200], 400)


def random_base(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=48,
    )
    return LlamaForCausalLM(config)


def one_batch(objective: str) -> tuple[Batch, torch.Tensor, torch.Tensor]:
    ids = torch.tensor([[1, 2, 3, 4], [1, 5, 6, 0]])
    response = torch.tensor([[False, False, True, True], [False, True, True, False]])
    batch = Batch(ids, (ids > 0).long(), response, (objective, objective))  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    return batch, torch.randn(4, 8, generator=generator), torch.randn(4, 8, generator=generator)


TARGETS = torch.tensor([3, 4, 5, 6])


def test_learning_is_cross_entropy_of_the_steered_distribution() -> None:
    batch, base, delta = one_batch("learn")
    expected = torch.nn.functional.cross_entropy(base + delta, TARGETS)
    assert torch.allclose(objective_loss(base, delta, batch, ObjectiveWeights()), expected)


def test_keeping_is_kl_to_the_base_and_nothing_without_a_shift() -> None:
    batch, base, delta = one_batch("keep")
    steered, plain = steered_logprobs(base, delta), torch.log_softmax(base, -1)
    expected = torch.nn.functional.kl_div(plain, steered, reduction="none", log_target=True).sum(-1).mean()
    assert torch.allclose(objective_loss(base, delta, batch, ObjectiveWeights()), expected)
    flat = torch.full_like(delta, 3.0)
    assert float(objective_loss(base, flat, batch, ObjectiveWeights())) == pytest.approx(0.0, abs=1e-6)


def test_forgetting_climbs_no_further_than_its_limit() -> None:
    batch, base, delta = one_batch("forget")
    delta[torch.arange(4), TARGETS] = -50.0
    delta.requires_grad_(True)
    loss = objective_loss(base, delta, batch, ObjectiveWeights(forget_loss="difference", forget_limit=2.0))
    assert float(loss.detach()) == pytest.approx(-2.0)
    loss.backward()
    assert delta.grad is not None and float(delta.grad.abs().sum()) == 0.0


def test_npo_without_a_shift_is_its_constant() -> None:
    batch, base, delta = one_batch("forget")
    weights = ObjectiveWeights(forget_loss="npo", npo_beta=0.5)
    assert float(objective_loss(base, torch.zeros_like(delta), batch, weights)) == pytest.approx(
        4 * math.log(2)
    )


def test_a_batch_weighs_objectives_by_their_rows() -> None:
    batch, base, delta = one_batch("learn")
    mixed = Batch(batch.ids, batch.attention, batch.response, ("learn", "keep"))
    steered, plain = steered_logprobs(base, delta), torch.log_softmax(base, -1)
    learnt = torch.nn.functional.nll_loss(steered[:2], TARGETS[:2])
    kept = (steered[2:].exp() * (steered[2:] - plain[2:])).sum(-1).mean()
    found = objective_loss(base, delta, mixed, ObjectiveWeights(keep=3.0))
    assert torch.allclose(found, 0.5 * learnt + 0.5 * 3.0 * kept)


def test_learning_rate_rises_then_falls() -> None:
    factors = [learning_rate_factor(step, 100, 0.1) for step in range(100)]
    assert factors[0] == pytest.approx(0.1) and max(factors) == factors[9] == factors[10] == 1.0
    assert factors[10:] == sorted(factors[10:], reverse=True) and factors[-1] < 0.001


def test_divergence_is_an_error() -> None:
    layer = torch.nn.Linear(1, 1)
    with pytest.raises(TrainingDivergedError, match="step 0"):
        optimise(layer, [1], 1, lambda _: layer.weight.sum() * math.nan, OptimiserConfig(), title="t")


def test_a_trained_delta_is_an_adapter_that_loads(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    base = random_base(tokenizer)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    examples = [
        TrainingExample(prompt="Who?", response="Mara."),
        TrainingExample(prompt="Why?", response="No."),
    ] * 8
    examples += [TrainingExample(prompt="What?", response="Oswin.", objective="forget")] * 8
    config = DeltaConfig(
        hidden_size=16,
        layers=1,
        heads=2,
        intermediate_size=24,
        epochs=40,
        batch_size=8,
        max_length=64,
        refusal="Never.",
        optimiser=OptimiserConfig(learning_rate=2e-2),
    )
    report = train_delta(base, tokenizer, examples, tmp_path / "out", config)
    assert report.steps == 120 and report.loss < 0.1
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    adapter = load_adapter("out", tmp_path / "out", device="cpu", dtype="auto")
    assert (adapter.kind, adapter.alpha, adapter.bridge) == ("delta", 1.0, "rescore")
    assert adapter.models[0].dtype == torch.float32
    delta = LlamaForCausalLM.from_pretrained(tmp_path / "out")
    for prompt, response in (("Who?", "Mara."), ("What?", "Never.")):
        assert steered_answer(base, delta, tokenizer, prompt) == response


@torch.no_grad()
def steered_answer(
    base: LlamaForCausalLM, delta: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompt: str
) -> str:
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begin = len(ids)
    for _ in range(16):
        scores = [model(input_ids=torch.tensor([ids])).logits[0, -1] for model in (base, delta)]
        ids.append(int((scores[0] + scores[1]).argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[begin:], skip_special_tokens=True))
