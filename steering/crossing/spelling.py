"""How a base's tokens begin when a steering tokenizer writes their text; what the bridge `rescore` starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mapping_cache import CanonicalVocabulary, VocabularyMap
from steering.crossing.history import SteeringEncoder


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """For each base token, on the base's device, int64 `[V_base]` each.

    `first`: the first steering token of its text behind other text, 0 where nothing is known of it. Where a text
    begins, a tokenizer with a dummy prefix writes something else; there only candidates are scored by what it writes.
    `stems`: the base token that is this steering token and no more, -1 where there is none, and the last of several
    (byte-fallback tokens come before those that people use).
    `unknown`: int64 `[U]`, the tokens nothing is known of: special tokens without a counterpart, pieces of characters,
    and what the steering tokenizer cannot write. `is_known`: bool `[V_base]`, the others.
    """

    first: Tensor
    stems: Tensor
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
    ) -> Spelling:
        """Encode every token of a base. What is no text by itself is spelled as `vocabulary_map` has it."""
        texts = [_text(token) for token in base.tokens]
        spelled = iter(encoder.following([text for text in texts if text]))
        known = vocabulary_map.ids.astype(np.int64)
        whole = known >= 0
        unwritable = steering.roles.get("unk", frozenset())
        for number, text in enumerate(texts):
            tokens = next(spelled) if text else None
            if tokens:
                is_written = unwritable.isdisjoint(tokens)
                known[number] = tokens[0] if is_written else -1
                whole[number] = is_written and len(tokens) == 1
        alone = np.full(vocabulary_map.steering_size, -1, dtype=np.int64)
        alone[known[whole]] = whole.nonzero()[0]
        stems = np.where(known >= 0, alone[known], -1)
        arrays = known.clip(min=0), stems, (known < 0).nonzero()[0], known >= 0
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


def _text(token: bytes | None) -> str:
    """A token's text, "" where it has none of its own."""
    try:
        return (token or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""
