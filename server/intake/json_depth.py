"""How deeply JSON text is nested, measured before anything parses it.

Parsers, chat templates and grammar compilers recurse once a level, so a few kilobytes of brackets would exhaust their
stacks.
"""

from __future__ import annotations

import numpy as np

MAX_DEPTH = 100
"""The most levels of arrays and objects in a request. A JSON schema takes two or three levels for each of its own."""


def is_too_deep(content: bytes) -> bool:
    """Whether JSON text has more than `MAX_DEPTH` levels; for other text, whether a parser could get that deep.

    Takes about 10 ms a megabyte, and far less for text with few brackets.
    """
    if content.count(b"[") + content.count(b"{") <= MAX_DEPTH:
        return False
    # Without its escapes, a string has no quotes but its own.
    text = np.frombuffer(content.replace(b"\\\\", b"").replace(b'\\"', b""), np.uint8)
    outside = np.cumsum(text == ord('"'), dtype=np.int32) % 2 == 0
    steps = np.zeros(len(text), np.int32)
    steps[outside & ((text == ord("[")) | (text == ord("{")))] = 1
    steps[outside & ((text == ord("]")) | (text == ord("}")))] = -1
    return bool(steps.cumsum().max(initial=0) > MAX_DEPTH)
