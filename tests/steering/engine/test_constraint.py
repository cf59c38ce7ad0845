"""Grammars over the fused distribution: tokens are drawn by the steered scores from those that a grammar allows."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from steering.crossing.text import TextStream
from steering.engine.constraint import Constraint, ConstraintCompiler, ConstraintError, constrain
from steering.engine.request import Request
from steering.model.loaded_model import LoadedModel
from tests.oracle import Oracle
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, drain, request, run, run_alone

PIECES, BYTES = Tiny("llama", "sp", seed=3, padding=5), Tiny("gpt2", "bl", seed=4, padding=3)
OWN, OTHER = Tiny("llama", "sp", seed=8), Tiny("qwen2", "bl", seed=9)
PROMPT = (40, 260, 270, 281, 290, 300)
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5},
        "kind": {"enum": ["río", "lake"]},
        "size": {"type": "integer", "minimum": 0, "maximum": 99},
    },
    "required": ["name", "kind", "size"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_pattern": "[ ]?"},
}
RULES = f"start: %json {json.dumps(SCHEMA)}"


@cache
def compiler(base: LoadedModel) -> ConstraintCompiler:
    return ConstraintCompiler(base.vocabulary, base.eos_token_ids)


def written(base: LoadedModel, tokens: list[int], prompt: tuple[int, ...] = PROMPT) -> str:
    """The text that tokens add after the prompt."""
    stream = TextStream(base.vocabulary)
    stream.push(prompt)
    stream.finish()
    return stream.push(tokens) + stream.finish()


def under(constraint: Constraint, one: Request) -> Request:
    return replace(one, constraint=constraint)


def satisfies(text: str) -> bool:
    value = json.loads(text)
    return (
        list(value) == ["name", "kind", "size"]
        and len(value["name"]) <= 5
        and value["kind"] in ("río", "lake")
        and 0 <= value["size"] <= 99
    )


@pytest.mark.parametrize("tiny", [PIECES, BYTES])
def test_every_answer_satisfies_its_schema_and_free_rows_are_as_alone(
    workshop: Workshop, make_engine: MakeEngine, tiny: Tiny
) -> None:
    adapters = [workshop.adapter("own", OWN)[0], workshop.adapter("other", OTHER)[0]]
    engine, base = make_engine(tiny, *adapters), workshop.loaded(tiny)
    constraint = compiler(base).compile(RULES)
    free = [request(f"free-{name}", PROMPT, *([name] if name else [])) for name in ("", "own", "other")]
    held = [
        under(constraint, request(f"{name}-{heat}", PROMPT, *([name] if name else []), count=120, **fields))
        for name in ("", "own", "other")
        for heat, fields in enumerate(
            ({}, {"temperature": 1.3, "seed": 5}, {"temperature": 0.8, "top_p": 0.9})
        )
    ]
    alone = {one.request_id: run_alone(engine, one) for one in free}
    results = run(engine, [*held, *free])
    for one in held:
        result = results[one.request_id]
        assert result.finish == "stop"
        assert satisfies(written(base, result.tokens))
    for name, result in alone.items():
        assert results[name].tokens == result.tokens


@pytest.mark.parametrize("names", [(), ("own",), ("other",)])
def test_greedy_takes_the_steered_distributions_best_among_the_allowed(
    workshop: Workshop, make_engine: MakeEngine, names: tuple[str, ...]
) -> None:
    made = {"own": workshop.adapter("own", OWN), "other": workshop.adapter("other", OTHER)}
    engine, base = make_engine(PIECES, *(made[name][0] for name in names)), workshop.loaded(PIECES)
    constraint = compiler(base).compile(RULES)
    result = run(engine, [under(constraint, request("r", PROMPT, *names, count=8))])["r"]
    oracle = Oracle(workshop.naive(PIECES), *(made[name][1] for name in names))
    state, text = constraint.start(), list(PROMPT)
    for token, entry in zip(result.tokens, result.entries, strict=True):
        bits = state.allowed(())
        assert bits is not None
        allowed = np.unpackbits(bits.view(np.uint8), bitorder="little")[: base.vocab_size].astype(bool)
        # What is reported is the steered distribution as it is, without the grammar.
        steered = oracle.logprobs(text)
        assert entry.logprob == pytest.approx(float(steered[token]), abs=1e-4)
        assert token == int(steered.masked_fill(~torch.from_numpy(allowed), float("-inf")).argmax())
        text.append(token)
        state.follow(text[len(PROMPT) :])


def test_the_first_mask_is_what_the_grammar_can_begin_with(workshop: Workshop) -> None:
    base = workshop.loaded(BYTES)
    bits = compiler(base).compile('start: "ab" | "b" /[0-9]/').start().allowed(())
    assert bits is not None
    allowed = np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little"))
    spelled = {base.vocabulary.tokens[token] for token in allowed}
    wanted = {b"ab", b"a", b"b", *(b"b%d" % digit for digit in range(10))}
    assert spelled == wanted & set(base.vocabulary.tokens)


@pytest.mark.parametrize(
    "fields",
    [
        {"min_tokens": 110},
        {"ignore_eos": True},
        {"logit_bias": ((123, -100.0),)},
        {"repetition_penalty": 1.5},
    ],
    ids=str,
)
def test_other_fields_do_not_break_a_grammar(
    workshop: Workshop, make_engine: MakeEngine, fields: dict[str, Any]
) -> None:
    engine, base = make_engine(BYTES), workshop.loaded(BYTES)
    one = under(
        compiler(base).compile(RULES), request("r", PROMPT, count=120, **{"ignore_eos": False, **fields})
    )
    result = run_alone(engine, one)
    assert result.finish == "stop"
    assert satisfies(written(base, result.tokens))


def test_bias_decides_where_the_grammar_leaves_a_choice(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine, base = make_engine(BYTES), workshop.loaded(BYTES)
    constraint = compiler(base).compile('start: "x" | "y"')
    for letter in (b"x", b"y"):
        token = base.vocabulary.tokens.index(letter)
        one = under(constraint, request("r", PROMPT, logit_bias=((token, 100.0),)))
        assert run_alone(engine, one).tokens == [token]


@pytest.mark.parametrize(("min_tokens", "expected"), [(0, 0), (3, 3)])
def test_an_open_grammar_ends_at_the_models_own_end_and_not_before_min_tokens(
    workshop: Workshop, make_engine: MakeEngine, min_tokens: int, expected: int
) -> None:
    engine, base = make_engine(BYTES), workshop.loaded(BYTES)
    end = min(base.eos_token_ids)
    fields: dict[str, Any] = {"ignore_eos": False, "min_tokens": min_tokens, "logit_bias": ((end, 100.0),)}
    one = under(compiler(base).compile("start: /[0-9]*/"), request("r", PROMPT, **fields))
    result = run_alone(engine, one)
    assert result.finish == "stop"
    assert result.tokens[-1] == end
    assert len(result.tokens) == expected + 1


def test_max_tokens_cut_an_answer(workshop: Workshop, make_engine: MakeEngine) -> None:
    constraint = compiler(workshop.loaded(BYTES)).compile("start: /[0-9]{30}/")
    result = run_alone(make_engine(BYTES), under(constraint, request("r", PROMPT, count=7)))
    assert (result.finish, len(result.tokens)) == ("length", 7)


def test_preemption_changes_no_token(workshop: Workshop, make_engine: MakeEngine) -> None:
    constraint = compiler(workshop.loaded(PIECES)).compile(RULES)
    adapter = workshop.adapter("own", OWN)[0]
    many = [
        under(constraint, request(str(i), PROMPT[: 6 - i], "own", count=40, temperature=1.0, seed=i))
        for i in range(5)
    ]
    expected = run(make_engine(PIECES, adapter), many)
    page = 2 * 2 * 2 * 8 * 4 * 4  # keys and values, layers, heads, width of a head, bytes, positions
    tight = make_engine(PIECES, adapter, kv_cache_memory=16 * page, max_model_len=60)
    results = run(tight, many)
    assert tight.stats().preemptions > 0
    assert {name: result.tokens for name, result in results.items()} == {
        name: result.tokens for name, result in expected.items()
    }


def test_one_rows_failing_grammar_ends_that_row_alone(workshop: Workshop, make_engine: MakeEngine) -> None:
    engine, base = make_engine(BYTES), workshop.loaded(BYTES)
    constraint = compiler(base).compile(RULES)
    broken = under(constraint, request("broken", PROMPT, count=60))
    for one in (broken, under(constraint, request("whole", PROMPT, count=120)), request("free", PROMPT)):
        engine.add_request(one)
    engine.step()
    state = engine._sequences["broken"].constraint
    assert state is not None
    state.error = "it has grown too large"
    outputs = {output.request_id: output for output in engine.step()}
    assert (outputs["broken"].finish_reason, outputs["broken"].cause) == ("error", "constraint")
    assert "grown too large" in (outputs["broken"].error or "")
    rest = drain(engine, {})
    assert {name: result.finish for name, result in rest.items()} == {"whole": "stop", "free": "length"}


@pytest.mark.parametrize(
    ("grammar", "reason"),
    [
        ("start: nothing", "nothing"),
        ('start: %json {"type": "banana"}', "banana"),
        ('start: %json {"$ref": "https://example.org/schema"}', "example.org"),
        ('start: %json {"type": "integer", "minimum": 5, "maximum": 4}', "nsatisfiable"),
        ('start: %json {"$ref": "#"}', "nothing can satisfy"),
        ("start: /(?=a)b/", "regex"),
    ],
)
def test_a_grammar_that_cannot_be_says_why(workshop: Workshop, grammar: str, reason: str) -> None:
    with pytest.raises(ConstraintError, match=reason):
        compiler(workshop.loaded(BYTES)).compile(grammar)


def test_exponential_and_recursive_schemas_are_bounded(workshop: Workshop) -> None:
    tower: dict[str, Any] = {"d24": {"type": "string"}}
    for level in range(24):
        part = {"$ref": f"#/$defs/d{level + 1}"}
        tower[f"d{level}"] = {"anyOf": [{"type": "object", "properties": {"a": part, "b": part}}] * 4}
    twisted = {
        "allOf": [
            {
                "anyOf": [
                    {"properties": {f"p{i}{j}": {"type": "string"}}, "required": [f"p{i}{j}"]}
                    for j in range(8)
                ]
            }
            for i in range(8)
        ]
    }
    list_of_itself = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
    compile_ = compiler(workshop.loaded(BYTES)).compile
    for schema in ({"$defs": tower, "$ref": "#/$defs/d0"}, list_of_itself):
        assert compile_(f"start: %json {json.dumps(schema)}").start().allowed(()) is not None
    with pytest.raises(ConstraintError, match="too large"):
        compile_(f"start: %json {json.dumps(twisted)}")


def test_grammars_are_kept_and_states_are_apart(workshop: Workshop) -> None:
    mine = ConstraintCompiler(workshop.loaded(BYTES).vocabulary, workshop.loaded(BYTES).eos_token_ids)
    constraint = mine.compile('start: "abc"')
    assert mine.compile('start: "abc"') is constraint
    for number in range(20):
        mine.compile(f'start: "a{number}"')
    assert mine.compile('start: "abc"') is not constraint
    letters = [workshop.loaded(BYTES).vocabulary.tokens.index(letter) for letter in (b"a", b"b", b"c")]
    one, two = constraint.start(), constraint.start()
    assert [one.follow(letters[: count + 1]) for count in range(3)] == [False, False, True]
    # A state that reads all at once is where the other came token by token.
    assert two.follow(letters[:1]) is False
    assert two.follow(letters) is True
    assert one.follow(letters) is True
    assert not constraint.start().follow([letters[1]])


def test_rows_without_a_grammar_cost_nothing() -> None:
    scores = torch.zeros(3, 10)
    assert constrain(scores, [None, None, None], [(), (), ()]) is scores
