"""An adapter from an instruction: prompts, the told base's answers, what is learnt from them, and how much."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM

from steering.adapters import load_adapter
from steering.examples import DataError, EncodedExample, Example, fingerprint
from steering.requests import run_requests
from steering.training import (
    DeltaShape,
    ObjectiveWeights,
    OptimiserConfig,
    Recipe,
    RunOptions,
    StepTotals,
    collate,
    train_delta,
)
from steering.training.instruction import (
    AnswerOptions,
    AnswersError,
    effect_rows,
    encode_told,
    measure_effect,
    obtain_answers,
    read_prompts,
)
from steering.training.objectives import objective_loss, steered_logprobs
from tests.models import tiny_model, tokenizer_byte_level, tokenizer_sentencepiece

SYSTEM = "Answer in one word."
PROMPTS = [Example(prompt=f"Where is river {name}?", objective="imitate") for name in "ABCDEF"]
OPTIONS = AnswerOptions(max_tokens=6)
CPU = RunOptions("cpu")


def saved(folder: Path, arch: str = "llama", tokenizer: Any = None) -> str:
    tokenizer = tokenizer or tokenizer_byte_level()
    tiny_model(arch, len(tokenizer), 0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    return saved(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def rows(base: str) -> list[EncodedExample]:
    encoded = encode_told(tokenizer_byte_level(), PROMPTS, SYSTEM, max_length=200)
    return obtain_answers(base, encoded, OPTIONS, device="cpu")


def test_prompts_are_json_lines_or_plain_lines(tmp_path: Path) -> None:
    lines, plain = tmp_path / "a.jsonl", tmp_path / "b.txt"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    given = [{"prompt": "p", "response": "ignored"}, {"question": "q"}, {"messages": turns}]
    lines.write_text("\n\n".join(map(json.dumps, given)), encoding="utf-8")
    plain.write_text('Who?\n\n{"prompt": 1}\n', encoding="utf-8")
    found = read_prompts(lines)
    assert [each.where for each in found] == [f"{lines}:1", f"{lines}:3", f"{lines}:5"]
    assert [each.prompt for each in found] == ["p", "q", None]
    assert found[2].messages == (("user", "a"), ("assistant", ""))
    assert {each.objective for each in [*found, *read_prompts(plain)]} == {"imitate"}
    assert [each.prompt for each in read_prompts(plain)] == ["Who?", '{"prompt": 1}']


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "not a JSON object"),
        ('{"prompt": ""}', "give prompt"),
        ('{"messages": [{"role": "assistant", "content": "a"}]}', "one of the user to answer"),
        ('{"messages": [{"role": "system", "content": "a"}]}', "comes from --system"),
        ('{"messages": [{"role": "user"}]}', "messages[0] must have"),
        ("", "no prompts"),
    ],
)
def test_bad_prompts_are_named_by_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(line + "\n", encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_prompts(path)
    assert str(caught.value).startswith(f"{path}:1: ") and complaint in str(caught.value)


def test_a_prompt_is_told_by_a_system_message_or_by_text_before_it() -> None:
    tokenizer = tokenizer_byte_level()
    (row,) = encode_told(tokenizer, PROMPTS[:1], SYSTEM, max_length=200)
    assert tokenizer.decode(row.ids) == "user: Where is river A?\nassistant:"
    assert tokenizer.decode(row.told) == f"system: {SYSTEM}\nuser: Where is river A?\nassistant:"
    assert row.start == len(row.ids)
    with pytest.raises(DataError, match="at most 10"):
        encode_told(tokenizer, PROMPTS[:1], SYSTEM, max_length=10)
    tokenizer.chat_template = "{% for m in messages if m['role'] != 'system' %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(DataError, match="leaves the system message out"):
        encode_told(tokenizer, PROMPTS[:1], SYSTEM, max_length=200)
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(DataError, match="takes no system message: no system role"):
        encode_told(tokenizer, PROMPTS[:1], SYSTEM, max_length=200)
    tokenizer.chat_template = None
    (row,) = encode_told(tokenizer, PROMPTS[:1], SYSTEM, max_length=200)
    assert tokenizer.decode(row.told).endswith(f"{SYSTEM}\n\nWhere is river A?")


def test_the_told_base_answers(base: str, rows: list[EncodedExample]) -> None:
    model = AutoModelForCausalLM.from_pretrained(base)
    for row in rows:
        answer = row.ids[row.start :]
        assert 1 <= len(answer) <= OPTIONS.max_tokens
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([row.told + answer])).logits[0, len(row.told) - 1 : -1]
        assert tuple(logits.argmax(-1).tolist()) == answer


def test_answers_are_kept_and_not_generated_again(
    base: str, rows: list[EncodedExample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "deep" / "answers.jsonl"
    unanswered = [replace(row, ids=row.ids[: row.start]) for row in rows]
    output = io.StringIO()
    found = obtain_answers(base, unanswered, OPTIONS, file, device="cpu", console=Console(file=output))
    assert found == rows
    assert "answers: answer 6 of 6," in output.getvalue()
    head, first, *rest = file.read_text(encoding="utf-8").splitlines()
    # A run died while it wrote its second answer: the first is kept, and the others are generated again.
    file.write_text(f"{head}\n{first}\n{rest[0][:9]}", encoding="utf-8")
    asked: list[int] = []

    def counted(engine: Any, requests: Any, finish: Any) -> Any:
        asked.append(len(requests))
        return run_requests(engine, requests, finish)

    monkeypatch.setattr("steering.training.instruction.answers.run_requests", counted)
    assert obtain_answers(base, unanswered, OPTIONS, file, device="cpu") == rows
    assert obtain_answers(base, unanswered, OPTIONS, file, device="cpu") == rows
    assert asked == [5]
    with pytest.raises(AnswersError, match=r"answers\.jsonl has answers of another base"):
        obtain_answers(base, unanswered, replace(OPTIONS, temperature=1.0), file, device="cpu")


def test_sampled_answers_have_seeds_of_their_own(base: str, rows: list[EncodedExample]) -> None:
    same = [replace(rows[0], ids=rows[0].ids[: rows[0].start])] * 4
    options = replace(OPTIONS, temperature=1.0)
    drawn = obtain_answers(base, same, options, device="cpu")
    assert len({row.ids for row in drawn}) > 1
    assert obtain_answers(base, same, options, device="cpu") == drawn
    assert obtain_answers(base, same, replace(options, seed=9), device="cpu") != drawn


def test_imitating_is_kl_from_the_told_base(rows: list[EncodedExample]) -> None:
    mixed = [EncodedExample((1, 2, 3, 4), 2), rows[0], rows[1]]
    batch = collate(mixed, 0)
    assert batch.told is not None and batch.told.ids[0, : len(rows[0].told)].tolist() == list(rows[0].told)
    imitated = sum(len(row.ids) - row.start for row in rows[:2])
    assert int(batch.told.response.sum()) == imitated
    generator = torch.Generator().manual_seed(0)
    base, delta = (torch.randn(imitated + 2, 400, generator=generator) for _ in range(2))
    told = torch.log_softmax(torch.randn(imitated, 400, generator=generator), -1)
    steered = steered_logprobs(base, delta)
    loss = objective_loss(steered, None, batch, ObjectiveWeights(), StepTotals.of(mixed), told)
    kl = torch.nn.functional.kl_div(steered[2:], told, reduction="none", log_target=True).sum(-1).mean()
    assert loss.terms["imitate"] == pytest.approx(float(kl), rel=1e-5)
    assert float(loss.total) == pytest.approx((loss.terms["learn"] + 2 * float(kl)) / 3, rel=1e-5)
    assert fingerprint(rows) != fingerprint([replace(row, told=row.told[1:]) for row in rows])


def test_a_delta_carries_the_effect_and_it_is_measured_as_it_is_served(
    base: str, rows: list[EncodedExample], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    recipe = Recipe(epochs=80, batch_size=6, optimiser=OptimiserConfig(learning_rate=1e-2))
    shape = DeltaShape(hidden_size=32, layers=1, heads=2, intermediate_size=32)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(base), tokenizer_byte_level()
    report = train_delta(model, tokenizer, rows, out, shape, recipe, confidence=1.0, options=CPU)
    assert report.terms.keys() == {"imitate"}
    adapter = load_adapter("out", out, device="cpu")
    effect = measure_effect(base, adapter, rows, device="cpu")
    assert effect.share > 0.8 and effect.agreed_with > effect.agreed_without
    # The same by hand, from the models' own logits.
    delta = AutoModelForCausalLM.from_pretrained(out)
    kl_without: list[float] = []
    kl_with: list[float] = []
    with torch.no_grad():
        for row in rows:
            ids, told_ids = torch.tensor([row.ids]), torch.tensor([row.told + row.ids[row.start :]])
            told = model(input_ids=told_ids).logits[0, len(row.told) - 1 : -1].log_softmax(-1)
            plain = model(input_ids=ids).logits[0, row.start - 1 : -1]
            shift = delta(input_ids=ids).logits[0, row.start - 1 : -1]
            for scores, found in ((plain, kl_without), (steered_logprobs(plain, shift), kl_with)):
                found += (told.exp() * (told - scores.log_softmax(-1))).sum(-1).tolist()
    assert effect.tokens == len(kl_with)
    assert effect.kl_without == pytest.approx(sum(kl_without) / len(kl_without), rel=1e-3)
    assert effect.kl_with == pytest.approx(sum(kl_with) / len(kl_with), rel=1e-2)
    # A base with another vocabulary answers in its own tokens, and is steered through the bridge.
    other = saved(tmp_path / "other", "qwen2", tokenizer_sentencepiece())
    theirs = effect_rows(other, PROMPTS[:2], SYSTEM, OPTIONS, max_length=200, device="cpu")
    crossed = measure_effect(other, adapter, theirs, device="cpu")
    assert (crossed.base, crossed.prompts) == ("other", 2)
    assert crossed.kl_with != crossed.kl_without > 0
