"""The error raised for a tokenizer that cannot be read."""

from __future__ import annotations


class UnsupportedTokenizerError(ValueError):
    """A tokenizer whose tokens cannot be turned into bytes with certainty.

    `part` names the part that was not understood: "backend", "model", "decoder", "normalizer",
    "pre_tokenizer" or "byte_encoder". `reason` says why.
    """

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"unsupported tokenizer ({part}): {reason}")
        self.part = part
        self.reason = reason
