"""The demo's tokenizers, trained on little text with small vocabularies."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from demo import tokenizer_training
from demo.build import tokenizer_text

TEXTS = tokenizer_text(0)[:400]
SAMPLES = ["Where was Mara Quillon born?", "User: é🙂 555-1234\nAssistant:\nHi  there", " a", "", "\n\n"]


@pytest.fixture(scope="module", params=["sentencepiece", "byte-level"])
def tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    if request.param == "sentencepiece":
        return tokenizer_training.sentencepiece_style(TEXTS, 700)
    return tokenizer_training.byte_level(TEXTS, 600)


@pytest.mark.parametrize("text", SAMPLES)
def test_any_text_survives(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = tokenizer.tokenize("call 555-1234")
    assert all(sum(character.isdigit() for character in piece) <= 1 for piece in pieces)


def test_a_conversation_and_its_prompt_split_alike(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "What does Mara Quillon do?"}]
    head = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert head == f"{tokenizer.bos_token}User: What does Mara Quillon do?\nAssistant:\n"
    short = tokenizer(head, add_special_tokens=False)["input_ids"]
    whole = tokenizer(head + "Mara Quillon works.", add_special_tokens=False)["input_ids"]
    assert whole[: len(short)] == short


def test_template_takes_system_messages_and_several_turns(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello!"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye."},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    eos = tokenizer.eos_token
    assert text == (
        f"{tokenizer.bos_token}System: Be brief.\nUser: Hello!\nAssistant:\nHi.{eos}\nUser: Bye.\nAssistant:\n"
    )
