"""What can go wrong while a vocabulary is read."""

from __future__ import annotations


class UnsupportedTokenizerError(ValueError):
    """A tokenizer whose tokens cannot be turned into bytes with certainty.

    `part` names what was not understood: "backend", "model", "decoder", "normalizer",
    "pre_tokenizer" or "byte_encoder".
    """

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"unsupported tokenizer ({part}): {reason}")
        self.part = part
        self.reason = reason
