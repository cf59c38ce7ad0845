"""Reads a text with the reader of each format of function calls."""

from __future__ import annotations

from typing import cast

from server.tools.call_formats import Call, HermesCalls, LlamaCalls, MistralCalls, ToolFormat
from server.tools.call_reader import ToolCallReader

FORMS: dict[str, ToolFormat] = {
    "hermes": HermesCalls(),
    "llama": LlamaCalls(),
    "mistral": MistralCalls(),
    "mistral-named": MistralCalls(named=True),
}
NAMES = frozenset({"weather", "clock"})


def read(form: ToolFormat, pieces: list[str], *, parallel: bool = True) -> list[str | Call]:
    """All parts of a text, with adjacent content joined."""
    reader = ToolCallReader(form, NAMES, parallel=parallel)
    # Without a grammar, calls are read whole.
    parts = cast(
        list[str | Call], [part for piece in pieces for part in reader.push(piece)] + reader.finish()
    )
    joined: list[str | Call] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        else:
            joined.append(part)
    return joined
