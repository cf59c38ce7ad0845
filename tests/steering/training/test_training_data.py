"""Training text: what is read, what is refused and where, and how it is batched."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from demo import vocabularies
from demo.build import tokenizer_text
from steering.training import (
    TrainingDataError,
    TrainingExample,
    encode_examples,
    read_examples,
    shuffled_batches,
)


def test_reads_both_forms_and_skips_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b\u2028c"}]
    lines = [
        json.dumps({"prompt": "p", "response": "r"}),
        "",
        json.dumps({"messages": turns, "objective": "keep"}, ensure_ascii=False),
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    first, second = read_examples(path)
    assert first == TrainingExample(prompt="p", response="r")
    assert second == TrainingExample(messages=(("user", "a"), ("assistant", "b\u2028c")), objective="keep")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "not a JSON object"),
        ('{"prompt": "p"}', "must both be strings"),
        ('{"prompt": 1, "response": "r"}', "must both be strings"),
        ('{"prompt": "p", "response": ""}', "response is empty"),
        ('{"prompt": "p", "response": "r", "objective": "hate"}', "'hate' is none of learn, keep, forget"),
        ('{"prompt": "p", "response": "r", "objective": ["keep"]}', "is none of"),
        ('{"prompt": "p", "response": "r", "reponse": "r"}', "unknown field 'reponse'"),
        ('{"messages": []}', "non-empty list"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "last message must be the assistant's"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', "messages[0].role 'robot'"),
        ('{"messages": [{"role": "assistant", "content": ""}]}', "messages[0].content"),
        ('{"messages": [{"role": "assistant"}]}', "exactly role and content"),
        ('{"messages": [{"role": "assistant", "content": "a"}], "prompt": "p"}', "not both"),
    ],
)
def test_bad_lines_are_named_by_file_and_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text('{"prompt": "p", "response": "r"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(TrainingDataError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)


def test_empty_missing_and_undecodable_files(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    empty.write_text("\n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    for path in (empty, binary, tmp_path / "absent.jsonl"):
        with pytest.raises(TrainingDataError, match=path.name):
            read_examples(path)


def test_only_the_response_and_the_end_are_trained() -> None:
    tokenizer = vocabularies.byte_level(tokenizer_text(0)[:200], 400)
    example = TrainingExample(prompt="Who?", response="Mara Quillon.")
    (encoded,) = encode_examples(tokenizer, [example], max_length=64)
    assert tokenizer.decode(encoded.ids[encoded.start :]) == "Mara Quillon." + tokenizer.eos_token
    assert tokenizer.decode(encoded.ids[: encoded.start]).endswith("Assistant:\n")
    with pytest.raises(TrainingDataError, match="example 1"):
        encode_examples(tokenizer, [example], max_length=encoded.start)
    tokenizer.chat_template = None
    (plain,) = encode_examples(tokenizer, [example], max_length=64)
    assert tokenizer.decode(plain.ids, skip_special_tokens=True) == "Who?Mara Quillon."
    with pytest.raises(TrainingDataError, match="chat template"):
        encode_examples(tokenizer, [TrainingExample(messages=(("assistant", "a"),))], max_length=64)


def test_an_epoch_has_every_example_once_and_masks_its_padding() -> None:
    tokenizer = vocabularies.byte_level(tokenizer_text(0)[:200], 400)
    examples = [
        TrainingExample(prompt="a " * index, response="b " * (1 + index % 3)) for index in range(1, 24)
    ]
    encoded = encode_examples(tokenizer, examples, max_length=64)
    seen = []
    for batch in shuffled_batches(encoded, batch_size=4, pad_id=1, rng=random.Random(0)):
        for ids, attention, response in zip(batch.ids, batch.attention, batch.response, strict=True):
            length = int(attention.sum())
            start = int(response.float().argmax())
            assert response.nonzero().flatten().tolist() == list(range(start, length))
            seen.append((tuple(ids[:length].tolist()), start))
    assert sorted(seen) == sorted((row.ids, row.start) for row in encoded)
