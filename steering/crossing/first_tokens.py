"""The first steering token of each base token's text. The bridge `rescore` starts from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mapping_cache import CanonicalVocabulary, VocabularyMap
from steering.crossing.encoder import SteeringEncoder


@dataclass(frozen=True, slots=True, eq=False)
class FirstTokens:
    """How each base token begins in the steering vocabulary. On the base's device.

    first: int64 `[V_base]`, the first steering token of the base token's text behind other text; 0 where it is unknown.
    At the start of a text a tokenizer with a dummy prefix writes something else. There only candidates are scored by
    what it writes.
    exact: int64 `[V_base]`, the base token whose whole text is the steering token in `first`, -1 where there is none.
    Where several base tokens qualify it is the last one: byte-fallback tokens come before the tokens that texts use.
    unknown: int64 `[U]`, the base tokens without a first token: special tokens without a counterpart, parts of
    characters, and text that the steering tokenizer cannot write. is_known: bool `[V_base]`, the others.
    """

    first: Tensor
    exact: Tensor
    unknown: Tensor
    is_known: Tensor

    @classmethod
    def of(
        cls,
        base: CanonicalVocabulary,
        steering: CanonicalVocabulary,
        encoder: SteeringEncoder,
        vocabulary_map: VocabularyMap,
        device: torch.device,
    ) -> FirstTokens:
        """Encode every token of a base. A token without a text of its own takes its match in `vocabulary_map`."""
        texts = [_text(token) for token in base.tokens]
        encoded = iter(encoder.following([text for text in texts if text]))
        known = vocabulary_map.ids.astype(np.int64)
        whole = known >= 0
        unwritable = steering.roles.get("unk", frozenset())
        for number, text in enumerate(texts):
            tokens = next(encoded) if text else None
            if tokens:
                is_written = unwritable.isdisjoint(tokens)
                known[number] = tokens[0] if is_written else -1
                whole[number] = is_written and len(tokens) == 1
        by_steering = np.full(vocabulary_map.steering_size, -1, dtype=np.int64)
        by_steering[known[whole]] = whole.nonzero()[0]
        exact = np.where(known >= 0, by_steering[known], -1)
        arrays = known.clip(min=0), exact, (known < 0).nonzero()[0], known >= 0
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


def _text(token: bytes | None) -> str:
    """A token's text, or "" for a special token or a part of a character."""
    try:
        return (token or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""
