"""A delta and a pair trained end to end on a tiny random model: their answers, and their folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from demo import tokenizer_training
from demo.build import tokenizer_text
from steering.adapters import load_adapter
from steering.examples import Example, fingerprint
from steering.training import (
    Batch,
    DeltaShape,
    Lora,
    ObjectiveWeights,
    OptimiserConfig,
    Recipe,
    RunOptions,
    StepTotals,
    encode_for,
    train_delta,
    train_proxy,
)
from steering.training.objectives import Loss, objective_loss, steered_logprobs

SHAPE = DeltaShape(hidden_size=16, layers=1, heads=2, intermediate_size=24)
CPU = RunOptions(device="cpu")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return tokenizer_training.byte_level(tokenizer_text(0)[:200], 400)


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


def conversations() -> list[Example]:
    examples = [Example(prompt="Who?", response="Mara."), Example(prompt="Why?", response="No.")] * 8
    return examples + [Example(prompt="What?", response="Oswin.", objective="forget")] * 8


def test_a_trained_delta_is_an_adapter_that_loads(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    base = random_base(tokenizer)
    before = {name: value.clone() for name, value in base.state_dict().items()}
    recipe = Recipe(
        epochs=40,
        batch_size=8,
        max_length=64,
        refusal="Never.",
        optimiser=OptimiserConfig(learning_rate=2e-2),
    )
    encoded = encode_for(tokenizer, conversations(), recipe)
    out = tmp_path / "out"
    report = train_delta(base, tokenizer, encoded, out, SHAPE, recipe, name="/somewhere/base", options=CPU)
    assert report.steps == 120 and report.loss < 0.1
    assert all(torch.equal(value, before[name]) for name, value in base.state_dict().items())
    adapter = load_adapter("out", out, device="cpu", dtype="auto")
    assert (adapter.kind, adapter.alpha, adapter.bridge) == ("delta", 1.0, "rescore")
    assert adapter.models[0].dtype == torch.float32
    delta = LlamaForCausalLM.from_pretrained(out)
    for prompt, response in (("Who?", "Mara."), ("What?", "Never.")):
        assert steered_answer([(base, 1.0), (delta, 1.0)], tokenizer, prompt) == response
    card = json.loads((out / "adapter.json").read_text())["card"]
    assert card["template"]["name"] == "base" and card["template"]["parameters"] == base.num_parameters()
    assert card["template"]["vocabulary"] == card["delta"]["vocabulary"]
    assert card["data"]["fingerprint"] == fingerprint(encoded)
    assert card["data"]["examples"] == {"forget": 8, "learn": 16}
    assert card["recipe"]["epochs"] == 40 and card["figures"]["closing_loss"] == report.loss
    assert (out / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert card["data"]["fingerprint"] in (out / "README.md").read_text()


@pytest.mark.parametrize("lora", [None, Lora(rank=4, dropout=0.1)])
def test_a_trained_pair_is_an_adapter_that_loads(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, lora: Lora | None
) -> None:
    model = random_base(tokenizer)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Recipe(epochs=40, batch_size=8, max_length=64, optimiser=OptimiserConfig(learning_rate=2e-2))
    encoded = encode_for(tokenizer, conversations()[:16], recipe)
    report = train_proxy(model, tokenizer, encoded, tmp_path / "out", recipe, lora=lora, options=CPU)
    adapter = load_adapter("out", tmp_path / "out", device="cpu", dtype="auto")
    assert adapter.kind == "proxy" and len(adapter.models) == 2
    expert, untuned = (
        AutoModelForCausalLM.from_pretrained(tmp_path / "out" / part) for part in ("expert", "antiexpert")
    )
    half = {name: value.half().float() for name, value in before.items()}
    assert all(torch.equal(value, half[name]) for name, value in untuned.state_dict().items())
    assert set(expert.state_dict()) == set(untuned.state_dict())
    if lora is None:
        assert report.parameters == untuned.num_parameters() and report.loss < 0.5
        for prompt, response in (("Who?", "Mara."), ("Why?", "No.")):
            pair = [(untuned, 1.0), (expert, 1.0), (untuned, -1.0)]
            assert steered_answer(pair, tokenizer, prompt) == response
    else:
        assert report.parameters < untuned.num_parameters() / 3
        assert report.loss < report.records[0].loss
        changed = [name for name, value in expert.state_dict().items() if not torch.equal(value, half[name])]
        assert changed and all("proj" in name for name in changed)


def test_the_same_run_writes_the_same_version(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    recipe = Recipe(epochs=1, batch_size=8, max_length=64)
    encoded = encode_for(tokenizer, conversations(), recipe)
    versions = set()
    for parent in ("a", "b"):
        out = tmp_path / parent / "out"
        train_delta(random_base(tokenizer), tokenizer, encoded, out, SHAPE, recipe, options=CPU)
        versions.add(load_adapter("out", out, device="cpu").version)
    assert len(versions) == 1


def test_the_templates_confidence_is_varied(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[float, torch.Tensor] = {}
    references: dict[float, torch.Tensor] = {}
    for confidence in (1.0, 3.0):

        def record(base: torch.Tensor, delta: torch.Tensor, confidence: float = confidence) -> torch.Tensor:
            seen.setdefault(confidence, base.clone())
            return steered_logprobs(base, delta)

        def loss(
            steered: torch.Tensor,
            reference: torch.Tensor,
            batch: Batch,
            weights: ObjectiveWeights,
            totals: StepTotals,
            told: torch.Tensor | None,
            confidence: float = confidence,
        ) -> Loss:
            references.setdefault(confidence, reference.clone())
            return objective_loss(steered, reference, batch, weights, totals, told)

        monkeypatch.setattr("steering.training.delta.steered_logprobs", record)
        monkeypatch.setattr("steering.training.delta.objective_loss", loss)
        recipe = Recipe(epochs=1, batch_size=24, max_length=64)
        encoded = encode_for(tokenizer, conversations(), recipe)
        out = tmp_path / str(confidence)
        train_delta(
            random_base(tokenizer), tokenizer, encoded, out, SHAPE, recipe, confidence=confidence, options=CPU
        )
        assert json.loads((out / "adapter.json").read_text())["card"]["confidence"] == confidence
        # The reference of the keep loss is the template with the factors applied.
        torch.testing.assert_close(references[confidence], torch.log_softmax(seen[confidence], -1))
    factors = (seen[3.0] / seen[1.0]).median(-1).values
    torch.testing.assert_close(seen[3.0], seen[1.0] * factors[:, None])
    assert 1 / 3 <= factors.min() < 0.7 and 2 < factors.max() <= 3
    with pytest.raises(ValueError, match=r"confidence must be at least 1, not 0\.5"):
        train_delta(random_base(tokenizer), tokenizer, encoded, tmp_path / "o", SHAPE, recipe, confidence=0.5)


def test_an_initial_model_with_another_vocabulary_is_refused(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    other = random_base(tokenizer)
    other.resize_token_embeddings(len(tokenizer) + 8)
    other.save_pretrained(tmp_path / "other")
    recipe = Recipe(epochs=1, max_length=64)
    encoded = encode_for(tokenizer, conversations(), recipe)
    with pytest.raises(ValueError, match="its vocabulary has"):
        train_delta(
            random_base(tokenizer),
            tokenizer,
            encoded,
            tmp_path / "o",
            DeltaShape(init=tmp_path / "other"),
            recipe,
        )


@torch.no_grad()
def steered_answer(
    parts: list[tuple[LlamaForCausalLM, float]], tokenizer: PreTrainedTokenizerFast, prompt: str
) -> str:
    """A greedy answer from the weighted sum of the models' logits."""
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begin = len(ids)
    for _ in range(16):
        scores = sum(weight * model(input_ids=torch.tensor([ids])).logits[0, -1] for model, weight in parts)
        ids.append(int(torch.as_tensor(scores).argmax()))
        if ids[-1] == tokenizer.eos_token_id:
            break
    return str(tokenizer.decode(ids[begin:], skip_special_tokens=True))
