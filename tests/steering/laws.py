"""The base, the prompt and the adapters that the tests of laws 7, 8 and 9 share."""

from __future__ import annotations

from steering.adapters import Adapter
from tests.steering.support import Tiny, Workshop, tokenizer_of

BASE = Tiny("llama", "sp")
PROMPT = tuple(tokenizer_of("sp").encode("The captain told nobody that the bridge was closed"))
# Pages of four tokens: 2 layers, keys and values, 2 heads of 8 numbers of 4 bytes.
PAGE_BYTES = 4 * 2 * 2 * 2 * 8 * 4


def two_versions(workshop: Workshop) -> tuple[Adapter, Adapter]:
    return (
        workshop.adapter("tab", Tiny("gpt2", "bl", seed=31))[0],
        workshop.adapter("tab", Tiny("gpt2", "bl", seed=32))[0],
    )


def attached(workshop: Workshop) -> tuple[Adapter, Adapter]:
    return two_versions(workshop)[0], workshop.adapter("own", Tiny("mistral", "sp", seed=33))[0]
