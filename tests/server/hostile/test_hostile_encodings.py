"""Bodies of the wrong type, compressed bodies, and bodies that are malformed or too deeply nested."""

from __future__ import annotations

import gzip

import pytest

from tests.server.hostile.attack import CHAT, COMPLETIONS, Attack
from tests.server.hostile.raw_http import GOOD
from tests.server_process import ServerProcess


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "a",
        "*/*",
        "json",
    ],
)
def test_another_content_type_is_a_415(attack: Attack, content_type: str) -> None:
    for path in (COMPLETIONS, CHAT, "/tokenize", "/detokenize"):
        assert attack.send(path, content=GOOD, headers={"content-type": content_type}).status_code == 415


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "APPLICATION/JSON", "application/vnd.api+json"],
)
def test_json_by_any_of_its_names(attack: Attack, content_type: str) -> None:
    assert attack.send(COMPLETIONS, content=GOOD, headers={"content-type": content_type}).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip", "x" * 5000])
def test_a_compressed_body_is_a_415(attack: Attack, encoding: str) -> None:
    content = gzip.compress(GOOD) if encoding == "gzip" else GOOD
    reply = attack.send(COMPLETIONS, content=content, headers={"content-encoding": encoding})
    assert reply.status_code == 415


def test_a_gzip_bomb_is_never_unpacked(server: ServerProcess, attack: Attack) -> None:
    bomb = gzip.compress(b" " * 200_000_000)
    before = server.ask("memory")["bytes"]
    assert attack.send(COMPLETIONS, content=bomb, headers={"content-encoding": "gzip"}).status_code == 415
    attack.refuse(COMPLETIONS, content=bomb, param=None)
    assert server.ask("memory")["bytes"] - before < 50_000_000


@pytest.mark.parametrize(
    "content",
    [
        *(
            b"",
            b" ",
            b"null",
            b"true",
            b"1",
            b'"a"',
            b"[]",
            b"{",
            b"}",
            b"{}",
            b"{]",
            b'{"model"',
            b"\x00",
            b"\xef\xbb\xbf{}",
        ),
        *(
            b"\xff\xfe{\x00}\x00",
            b"a=1&b=2",
            b"<a/>",
            b"{'model': 'bytes'}",
            GOOD + b"x",
            GOOD + GOOD,
            GOOD[:-1],
            GOOD[1:],
        ),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"model": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        *(b"/*a*/" + GOOD, GOOD.replace(b":", b"=", 1), GOOD[:-1] + b",}", b"NaN", b"-", b'"\\u12"'),
    ],
    ids=lambda content: repr(content)[:30],
)
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
def test_a_body_that_is_no_object(attack: Attack, path: str, content: bytes) -> None:
    assert attack.send(path, content=content).status_code == 400


@pytest.mark.parametrize(
    "field", ["response_format", "metadata", "logit_bias", "steering", "stop", "messages", "tools"]
)
@pytest.mark.parametrize("levels", [50, 150, 5_000, 100_000])
def test_deep_nesting(attack: Attack, field: str, levels: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        nested = opening * levels + "1" + closing * levels
        content = f'{{"model": "bytes", "prompt": "a", "{field}": {nested}}}'
        assert attack.send(COMPLETIONS, content=content).status_code == 400
    schema = '{"type": "array", "items": ' * levels + "{}" + "}" * levels
    form = f'{{"type": "json_schema", "json_schema": {{"name": "a", "schema": {schema}}}}}'
    content = f'{{"model": "bytes", "prompt": "a", "max_tokens": 2, "response_format": {form}}}'
    assert attack.send(COMPLETIONS, content=content).status_code in (200, 400)


def test_of_a_key_given_twice_the_last_counts(attack: Attack) -> None:
    content = GOOD[:-1] + b', "max_tokens": 3, "max_tokens": 4, "model": "bytes"}'
    assert attack.send(COMPLETIONS, content=content).json()["usage"]["completion_tokens"] <= 4
    attack.refuse(
        COMPLETIONS, content=GOOD[:-1] + b', "max_tokens": 4, "max_tokens": -2}', param="max_tokens"
    )
    # A key that is repeated a thousand times is one key.
    assert attack.send(COMPLETIONS, content=GOOD[:-1] + b', "user": "a"' * 1000 + b"}").status_code == 200
