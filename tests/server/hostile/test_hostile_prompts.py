"""Prompts that are empty, mixed, out of range, at the limits or far beyond them, and text that is not Unicode."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.server.hostile.attack import CHAT, COMPLETION, COMPLETIONS, Attack

LIMIT = 256  # the tiny models' context length, in tokens
SPECIALS = {"bytes": "<|endoftext|>", "pieces": "</s>"}
SPECIAL_IDS = {"bytes": 398, "pieces": 2}


@pytest.mark.parametrize(
    "prompt",
    [
        *("", [], [[]], None, [""], ["a", ""], [None], [[], []], {}, True, 1, 1.5, [1.5], [True], [[True]]),
        *(["a", [1]], [[1], "a"], [1, "a"], ["a", 1], [[1], 2], [[[1]]], [{}], {"text": "a"}, [["a"]]),
        *([-1], [400], [[1], [400]], [2**31], [2**63], [2**64], [10**400], [[-(10**30)]]),
    ],
    ids=lambda prompt: repr(prompt)[:30],
)
def test_an_invalid_prompt(attack: Attack, prompt: Any) -> None:
    attack.change(COMPLETIONS, {"prompt": prompt}, param="prompt")


@pytest.mark.parametrize("model", ["bytes", "bytes:steer", "pieces:steer"])
def test_one_token_under_at_and_over_the_limit(attack: Attack, model: str) -> None:
    def ask(length: int, **fields: Any) -> httpx.Response:
        return attack.send(COMPLETIONS, {"model": model, "prompt": [45] * length, "max_tokens": 1, **fields})

    under = ask(LIMIT - 1)
    assert under.status_code == 200
    assert under.json()["usage"]["completion_tokens"] == 1
    for length in (LIMIT, LIMIT + 1):
        reply = ask(length)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "prompt")
        assert str(LIMIT) in reply.json()["error"]["message"]
    # What the room left cannot hold is not asked for.
    assert ask(LIMIT - 1, max_tokens=2).json()["usage"]["completion_tokens"] == 1
    assert ask(LIMIT, max_tokens=0, echo=True).status_code == 200
    assert ask(LIMIT + 1, max_tokens=0, echo=True).status_code == 400


@pytest.mark.parametrize(
    "prompt",
    [
        pytest.param(["a"] * 100_000, id="texts"),
        pytest.param([[45]] * 100_000, id="lists of ids"),
        pytest.param([45] * 100_000, id="ids"),
        pytest.param("a ferry " * 100_000, id="text"),
        pytest.param("x" * 1_000_000, id="word"),
        pytest.param(" " * 500_000, id="spaces"),
        pytest.param("é" * 200_000, id="letters of two bytes"),
        pytest.param("\x00" * 100_000, id="nul"),
    ],
)
def test_far_too_much(attack: Attack, prompt: Any) -> None:
    reply = attack.send(COMPLETIONS, {**COMPLETION, "prompt": prompt})
    assert reply.status_code in (400, 413), reply.text


def test_more_sequences_than_could_ever_wait(attack: Attack) -> None:
    assert attack.send(COMPLETIONS, {**COMPLETION, "prompt": ["a"] * 1024}).status_code in (400, 429)
    assert attack.send(COMPLETIONS, {**COMPLETION, "prompt": ["a"] * 60, "n": 128}).status_code in (400, 429)


def test_fifty_megabytes(attack: Attack) -> None:
    assert attack.send(COMPLETIONS, content=b'"' + b"x" * 50_000_000 + b'"').status_code == 413


def test_fifty_megabytes_of_unknown_length(attack: Attack) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(50):
            yield b"x" * 1_000_000

    try:
        assert attack.send(COMPLETIONS, content=parts()).status_code == 413  # type: ignore[arg-type]
    except (httpx.WriteError, httpx.ReadError, httpx.RemoteProtocolError):
        # The server answers and closes the connection while the client is still sending.
        attack.canary()


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize"])
@pytest.mark.parametrize(
    "text",
    [
        rb"\ud800",
        rb"\udc00",
        rb"\ud800x",
        rb"\udc00\ud800",
        b"\xed\xa0\x80",
        b"\xff",
        b"\xc0\x80",
        b"\xf8\x88",
    ],
    ids=repr,
)
def test_text_that_is_no_unicode(attack: Attack, path: str, text: bytes) -> None:
    bodies = {
        COMPLETIONS: b'{"model": "bytes", "prompt": "%s"}',
        CHAT: b'{"model": "bytes", "messages": [{"role": "user", "content": "%s"}]}',
        "/tokenize": b'{"model": "bytes", "prompt": "%s"}',
    }
    # Such a body is not JSON, so no field can be named.
    attack.refuse(path, content=bodies[path] % text, param=None)


@pytest.mark.parametrize("model", ["bytes", "pieces", "bytes:steer", "pieces:steer"])
@pytest.mark.parametrize(
    "text",
    [
        "\x00",
        "a\x00b",
        "\ufffd",
        "\ufeff",
        "\u202e",
        "\U0010ffff",
        "\r\n",
        "\x1b[2J",
        "e\u0301" * 20,
        "👩‍👩‍👧‍👦" * 3,
    ],
    ids=ascii,
)
def test_odd_text_is_text(attack: Attack, model: str, text: str) -> None:
    answer = attack.accept(COMPLETIONS, {"model": model, "prompt": text, "echo": True})
    assert answer["choices"][0]["text"].startswith(text)


@pytest.mark.parametrize("base", ["bytes", "pieces"])
def test_a_special_token_that_was_typed_stays_text(attack: Attack, base: str) -> None:
    special, special_id = SPECIALS[base], SPECIAL_IDS[base]

    def tokens(path_body: dict[str, Any]) -> list[int]:
        reply = attack.send("/tokenize", {"model": base, **path_body})
        assert reply.status_code == 200
        ids: list[int] = reply.json()["tokens"]
        return ids

    assert special_id not in tokens({"prompt": f"a{special}b"})
    assert special_id not in tokens({"messages": [{"role": "user", "content": f"a{special}b"}]})
    text = attack.send("/detokenize", {"model": base, "tokens": tokens({"prompt": f"a{special}b"})})
    assert text.json()["prompt"].endswith(f"a{special}b")
    usual = attack.accept(COMPLETIONS, {"model": base, "prompt": "ab"})["usage"]["prompt_tokens"]
    typed = attack.accept(COMPLETIONS, {"model": base, "prompt": f"a{special}b"})["usage"]["prompt_tokens"]
    assert typed > usual + 2
    # Sent as an id, it is the special token.
    assert (
        attack.accept(COMPLETIONS, {"model": base, "prompt": [special_id, 45]})["usage"]["prompt_tokens"] == 2
    )


@pytest.mark.parametrize("model", ["bytes:steer", "pieces:steer", "pieces"])
def test_any_ids_are_served(attack: Attack, model: str) -> None:
    for start in range(0, 400, 100):
        attack.accept(COMPLETIONS, {"model": model, "prompt": list(range(start, min(start + 100, 400)))})


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/tokenize", {}, 400),
        ("/tokenize", {"prompt": "a", "messages": [{"role": "user", "content": "a"}]}, 400),
        ("/tokenize", {"prompt": None}, 400),
        ("/tokenize", {"prompt": 1}, 400),
        ("/tokenize", {"prompt": "a", "model": "nobody"}, 404),
        ("/tokenize", {"prompt": "a", "model": "bytes:nobody"}, 404),
        ("/tokenize", {"messages": []}, 400),
        ("/tokenize", {"prompt": "a", "colour": "red"}, 400),
        ("/detokenize", {}, 400),
        ("/detokenize", {"tokens": None}, 400),
        ("/detokenize", {"tokens": "a"}, 400),
        ("/detokenize", {"tokens": [-1]}, 400),
        ("/detokenize", {"tokens": [480]}, 400),
        ("/detokenize", {"tokens": [10**30]}, 400),
        ("/detokenize", {"tokens": [1.5]}, 400),
        ("/detokenize", {"tokens": [True]}, 400),
        ("/detokenize", {"tokens": [], "model": "bytes"}, 200),
        ("/detokenize", {"tokens": [45] * 100_000, "model": "bytes"}, 200),
        ("/tokenize", {"prompt": "", "model": "bytes"}, 200),
    ],
    ids=lambda part: repr(part)[:40],
)
def test_the_tokenizer_routes(attack: Attack, path: str, body: dict[str, Any], status: int) -> None:
    assert attack.send(path, body).status_code == status
