"""Training data: reading, errors with their place, encoding, and batching."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import tokenizer_training
from demo.build import tokenizer_text
from steering.examples import DataError, EncodedExample, Example, encode_examples, fingerprint, read_examples
from steering.training import Recipe, collate, encode_for, shuffled_groups


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
    assert first == Example(prompt="p", response="r")
    assert second == Example(messages=(("user", "a"), ("assistant", "b\u2028c")), objective="keep")


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
    with pytest.raises(DataError) as caught:
        read_examples(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert complaint in str(caught.value)


def test_questions_with_answers_and_plain_text_are_read(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    lines = [{"question": "q", "answer": "a"}, {"text": "t", "objective": "forget"}]
    path.write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    pair, text = read_examples(path, default="keep")
    assert pair == Example(prompt="q", response="a", objective="keep")
    assert text == Example(text="t", objective="forget")
    assert (pair.where, text.where) == (f"{path}:1", f"{path}:2")
    assert (pair.reference, text.reference) == ("a", "t")


def test_every_token_of_plain_text_is_trained() -> None:
    tokenizer = tokenizer_training.byte_level(tokenizer_text(0)[:200], 400)
    (encoded,) = encode_examples(tokenizer, [Example(text="Mara Quillon.")], max_length=64)
    assert tokenizer.decode(encoded.ids) == tokenizer.bos_token + "Mara Quillon." + tokenizer.eos_token
    assert encoded.start == 1


def test_the_fingerprint_depends_on_the_data_and_its_objectives() -> None:
    tokenizer = tokenizer_training.byte_level(tokenizer_text(0)[:200], 400)
    examples = [Example(prompt="a", response="b"), Example(prompt="c", response="d")]
    encoded = encode_examples(tokenizer, examples, max_length=64)
    kept = [Example(prompt="a", response="b", objective="keep"), examples[1]]
    others = [
        encode_examples(tokenizer, rows, max_length=64) for rows in (examples[::-1], examples[:1], kept)
    ]
    assert fingerprint(encoded) == fingerprint(list(encoded))
    assert len({fingerprint(encoded), *map(fingerprint, others)}) == 4


def test_a_refusal_replaces_a_forgotten_response() -> None:
    tokenizer = tokenizer_training.byte_level(tokenizer_text(0)[:200], 400)
    turns = (("user", "Who?"), ("assistant", "Mara."))
    examples = [
        Example(prompt="Who?", response="Mara.", objective="forget"),
        Example(messages=turns, objective="forget"),
        Example(messages=turns, objective="keep"),
    ]
    encoded = encode_for(tokenizer, examples, Recipe(refusal="Never."))
    said = [tokenizer.decode(row.ids[row.start :], skip_special_tokens=True) for row in encoded]
    assert said == ["Never.", "Never.", "Mara."]


def test_empty_missing_and_undecodable_files(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.jsonl"
    empty.write_text("\n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe")
    for path in (empty, binary, tmp_path / "absent.jsonl"):
        with pytest.raises(DataError, match=path.name):
            read_examples(path)


def test_only_the_response_and_the_end_are_trained() -> None:
    tokenizer = tokenizer_training.byte_level(tokenizer_text(0)[:200], 400)
    example = Example(prompt="Who?", response="Mara Quillon.")
    (encoded,) = encode_examples(tokenizer, [example], max_length=64)
    assert tokenizer.decode(encoded.ids[encoded.start :]) == "Mara Quillon." + tokenizer.eos_token
    assert tokenizer.decode(encoded.ids[: encoded.start]).endswith("Assistant:\n")
    placed = Example(prompt="Who?", response="Mara Quillon.", where="data.jsonl:7")
    with pytest.raises(DataError, match=r"data\.jsonl:7: no token of the response is left"):
        encode_examples(tokenizer, [example, placed][1:], max_length=encoded.start)
    tokenizer.chat_template = None
    (plain,) = encode_examples(tokenizer, [example], max_length=64)
    assert tokenizer.decode(plain.ids, skip_special_tokens=True) == "Who?Mara Quillon."
    with pytest.raises(DataError, match="chat template"):
        encode_examples(tokenizer, [Example(messages=(("assistant", "a"),))], max_length=64)


def test_an_epoch_has_every_example_once_and_its_padding_is_masked() -> None:
    tokenizer = tokenizer_training.byte_level(tokenizer_text(0)[:200], 400)
    examples = [Example(prompt="a " * index, response="b " * (1 + index % 3)) for index in range(1, 24)]
    encoded = encode_examples(tokenizer, examples, max_length=64)
    seen = []
    for group in shuffled_groups(encoded, 4, random.Random(0)):
        batch = collate(group, 1)
        for ids, attention, response in zip(batch.ids, batch.attention, batch.response, strict=True):
            length = int(attention.sum())
            start = int(response.float().argmax())
            assert response.nonzero().flatten().tolist() == list(range(start, length))
            seen.append((tuple(ids[:length].tolist()), start))
    assert sorted(seen) == sorted((row.ids, row.start) for row in encoded)


@given(
    kept=st.lists(st.integers(20, 60), max_size=60),
    forgotten=st.lists(st.integers(3, 9), max_size=60),
    size=st.integers(1, 16),
)
def test_each_step_has_its_share_of_every_objective(kept: list[int], forgotten: list[int], size: int) -> None:
    rows = [EncodedExample(tuple(range(length)), 1, "keep") for length in kept]
    rows += [EncodedExample(tuple(range(length)), 1, "forget") for length in forgotten]
    groups = list(shuffled_groups(rows, size, random.Random(0)))
    assert Counter(row for group in groups for row in group) == Counter(rows)
    assert len(groups) == -(-len(rows) // size)
    assert all(len(group) <= size for group in groups)
    # The rows of one pool: a larger run has several, each with the shares that it drew.
    if len(rows) <= 16 * size:
        share = len(kept) / max(1, len(rows))
        for group in groups:
            found = sum(row.objective == "keep" for row in group)
            assert abs(found - share * len(group)) <= 2
