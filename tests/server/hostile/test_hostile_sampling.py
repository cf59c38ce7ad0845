"""Biases, stop strings, steering and switches that are invalid, excessive or contradictory."""

from __future__ import annotations

from typing import Any

import pytest

from tests.server.hostile.attack import BASICS, CHAT, COMPLETIONS, Attack

VOCABULARY = 400


@pytest.mark.parametrize(
    "bias",
    [
        *(
            {"400": 1},
            {"-1": 1},
            {"999999999": 1},
            {"9" * 40: 1},
            {"a": 1},
            {"": 1},
            {"1.0": 1},
            {"0x1": 1},
            {"+1": 1},
        ),
        *({" 1": 1}, {"١": 1}, {"1": "1"}, {"1": None}, {"1": True}, {"1": []}, {"1": 100.1}, {"1": -1e308}),
        *(
            [],
            [1],
            "1",
            1,
            True,
            {str(i): 0 for i in range(1025)},
            {str(i): 1 for i in range(VOCABULARY + 1)},
        ),
    ],
    ids=lambda bias: repr(bias)[:30],
)
def test_a_bias_that_cannot_be(attack: Attack, bias: Any) -> None:
    attack.change(COMPLETIONS, {"logit_bias": bias}, param="logit_bias")


@pytest.mark.parametrize("value", ["-Infinity", "Infinity", "NaN", "-1e999"])
def test_a_bias_without_end(attack: Attack, value: str) -> None:
    entries = ", ".join(f'"{token}": {value}' for token in range(VOCABULARY))
    content = f'{{"model": "bytes", "prompt": "a", "logit_bias": {{{entries}}}}}'
    attack.refuse(COMPLETIONS, content=content, param="logit_bias")


@pytest.mark.parametrize("model", ["bytes", "bytes:steer", "pieces:steer"])
@pytest.mark.parametrize("temperature", [0, 1, 2])
def test_every_token_as_unlikely_as_can_be(attack: Attack, model: str, temperature: float) -> None:
    bias = {str(token): -100 for token in range(VOCABULARY)}
    attack.accept(COMPLETIONS, {"model": model, "logit_bias": bias, "temperature": temperature})


def test_a_bias_on_tokens_that_the_steering_vocabulary_lacks(attack: Attack) -> None:
    # `pieces` has 480 tokens and the adapters 400, and many of them have no match.
    for bridge in ("map", "rescore"):
        answer = attack.accept(
            COMPLETIONS,
            {
                "model": "pieces",
                "steering": {"adapter": "steer", "bridge": bridge},
                "logit_bias": {str(token): 100 for token in range(440, 480)},
                "temperature": 0,
                "logprobs": 2,
            },
        )
        assert answer["usage"]["completion_tokens"] == 2


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
@pytest.mark.parametrize(
    "stop",
    [
        *([""], ["a", ""], [None], [1], 1, True, {}, [[]], ["a"] * 257, ["a"] * 10_000),
        *("x" * 1_000_000, ["x" * 1001], ["x" * 1000] * 17),
    ],
    ids=lambda stop: repr(stop)[:20],
)
def test_a_stop_string_that_cannot_be(attack: Attack, path: str, stop: Any) -> None:
    attack.change(path, {"stop": stop}, param="stop")


@pytest.mark.parametrize("stop", [b'"\\ud83d"', b'["\\ude00"]', b'"\xf0\x9f"'], ids=repr)
def test_half_a_character_is_no_stop_string(attack: Attack, stop: bytes) -> None:
    attack.refuse(COMPLETIONS, content=b'{"model": "bytes", "prompt": "a", "stop": %s}' % stop, param=None)


@pytest.mark.parametrize(
    "stop",
    ["\ufffd", "\x00", [], ["a" * 1000] * 16, ["a" * 62] * 256, "", "<|endoftext|>"],
    ids=lambda s: ascii(s)[:20],
)
def test_odd_stop_strings_are_served(attack: Attack, stop: Any) -> None:
    attack.accept(COMPLETIONS, {"stop": stop, "max_tokens": 20})


@pytest.mark.parametrize(
    ("steering", "param"),
    [
        ("", "steering"),
        ("nobody", "steering"),
        ("x" * 100_000, "steering"),
        ("steer\r\nx-evil: 1", "steering"),
        (["steer", "nobody"], "steering"),
        (["steer", "steer"], "steering"),
        (["steer", {"adapter": "steer", "alpha": 0.5}], "steering"),
        (["lean"] * 9, "steering"),
        (["lean"] * 100_000, "steering"),
        ({}, "steering"),
        ({"alpha": 1}, "steering"),
        ({"adapter": None}, "steering"),
        ({"adapter": ["steer"]}, "steering"),
        ({"adapter": {"adapter": "steer"}}, "steering"),
        ({"adapter": "nobody", "alpha": 1e6}, "steering"),
        ({"adapter": "steer", "bridge": ""}, "steering"),
        ({"adapter": "steer", "bridge": "MAP"}, "steering"),
        ({"adapter": "steer", "path": "/etc/passwd"}, "steering"),
        (True, "steering"),
        (1, "steering"),
        ([[]], "steering"),
        ([None], "steering"),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_steering_that_cannot_be(attack: Attack, steering: Any, param: str) -> None:
    attack.change(COMPLETIONS, {"steering": steering}, param=param)


def test_steering_named_in_two_places(attack: Attack) -> None:
    for steering in ("steer", "lean", {"adapter": "steer", "alpha": 0}, ["lean"]):
        attack.change(COMPLETIONS, {"model": "bytes:steer", "steering": steering}, param="steering")


@pytest.mark.parametrize("model", ["bytes", "pieces"])
@pytest.mark.parametrize("alpha", [-100, 100, -0.0, 1e-300])
@pytest.mark.parametrize("bridge", ["map", "rescore"])
def test_the_strongest_steering_is_served(attack: Attack, model: str, alpha: float, bridge: str) -> None:
    steering = [
        {"adapter": "steer", "alpha": alpha, "bridge": bridge},
        {"adapter": "lean", "alpha": -alpha, "bridge": bridge, "top_k": 1},
    ]
    attack.accept(
        COMPLETIONS, {"model": model, "steering": steering, "logprobs": 5, "steering_details": True}
    )


@pytest.mark.parametrize(
    ("model", "status"),
    [
        *(
            ("", 404),
            (":", 404),
            ("bytes:", 404),
            (":steer", 404),
            ("bytes:steer:lean", 404),
            ("bytes:nobody", 404),
        ),
        *(
            ("x" * 100_000, 404),
            ("../bytes", 404),
            ("bytes\r\nx-evil: 1", 404),
            ("\x00", 404),
            ("BYTES", 404),
        ),
        *((None, 400), (1, 400), ([], 400), ({}, 400), (True, 400)),
    ],
    ids=lambda part: repr(part)[:30],
)
def test_a_model_that_is_not_there(attack: Attack, model: Any, status: int) -> None:
    for path in (COMPLETIONS, CHAT):
        reply = attack.send(path, {**BASICS[path], "model": model})
        assert (reply.status_code, reply.json()["error"]["param"]) == (status, "model")
        assert "x-evil" not in reply.headers


@pytest.mark.parametrize(
    ("path", "change", "param"),
    [
        (COMPLETIONS, {"best_of": 1, "n": 2}, "best_of"),
        (COMPLETIONS, {"best_of": 2, "stream": True}, "best_of"),
        (COMPLETIONS, {"max_tokens": 0}, "max_tokens"),
        (COMPLETIONS, {"min_tokens": 3}, "min_tokens"),
        (COMPLETIONS, {"steering_details": True}, "steering_details"),
        (COMPLETIONS, {"stream_options": {"include_usage": True}}, "stream_options"),
        (COMPLETIONS, {"stream": True, "stream_options": {"include_usage": 1}}, "stream_options"),
        (COMPLETIONS, {"stream": True, "stream_options": {"colour": 1}}, "stream_options"),
        (COMPLETIONS, {"stream": 1}, "stream"),
        (COMPLETIONS, {"echo": "yes"}, "echo"),
        (COMPLETIONS, {"stop_token_ids": [VOCABULARY]}, "stop_token_ids"),
        (COMPLETIONS, {"stop_token_ids": [-1]}, "stop_token_ids"),
        (COMPLETIONS, {"stop_token_ids": [10**30]}, "stop_token_ids"),
        (COMPLETIONS, {"stop_token_ids": [1] * 257}, "stop_token_ids"),
        (COMPLETIONS, {"user": "x" * 100_000}, "user"),
        (COMPLETIONS, {"colour": "red"}, "colour"),
        (COMPLETIONS, {"messages": []}, "messages"),
        (COMPLETIONS, {"x" * 100_000: 1}, "x" * 199 + "…"),
        (COMPLETIONS, {"__class__": 1}, "__class__"),
        (CHAT, {"prompt": "a"}, "prompt"),
        (CHAT, {"max_tokens": 0}, "max_tokens"),
        (CHAT, {"max_completion_tokens": 1}, "max_tokens"),
        (CHAT, {"top_logprobs": 1}, "top_logprobs"),
        (CHAT, {"logprobs": 21}, "logprobs"),
        (CHAT, {"logprobs": "yes"}, "logprobs"),
        (CHAT, {"best_of": 2}, "best_of"),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_fields_that_contradict_each_other(
    attack: Attack, path: str, change: dict[str, Any], param: str
) -> None:
    attack.change(path, change, param=param)


def test_a_thousand_unknown_fields_are_one_short_error(attack: Attack) -> None:
    reply = attack.send(COMPLETIONS, {**BASICS[COMPLETIONS], **{f"field{i}": i for i in range(10_000)}})
    assert reply.status_code == 400


def test_everything_at_its_worst_together(attack: Attack) -> None:
    attack.accept(
        COMPLETIONS,
        {
            "temperature": 2,
            "top_p": 5e-324,
            "top_k": 1,
            "min_p": 1,
            "presence_penalty": -2,
            "frequency_penalty": 2,
            "repetition_penalty": 5e-324,
            "logit_bias": {str(token): -100 for token in range(VOCABULARY)},
            "min_tokens": 2,
            "stop_token_ids": list(range(256)),
            "logprobs": 20,
            "seed": 2**63 - 1,
            "n": 3,
        },
    )
