"""How a base's tokens begin when a steering tokenizer writes their text; what the bridge `rescore` starts from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mapping_cache import CanonicalVocabulary, VocabularyMap
from steering.history import SteeringEncoder


@dataclass(frozen=True, slots=True, eq=False)
class Spelling:
    """For each base token, on the base's device, int64 `[V_base]` each.

    `first`: the first steering token of its text, -1 where nothing is known of it. `stems`: the base token that is this
    steering token and no more, -1 where there is none. `unknown`: int64 `[U]`, the tokens nothing is known of: special
    tokens without a counterpart, and pieces of characters.
    """

    first: Tensor
    stems: Tensor
    unknown: Tensor

    @classmethod
    def of(
        cls,
        base: CanonicalVocabulary,
        encoder: SteeringEncoder,
        vocabulary_map: VocabularyMap,
        device: torch.device,
    ) -> Spelling:
        """Encode every token of a base. What is no text by itself is spelled as `vocabulary_map` has it."""
        texts = [_text(token) for token in base.tokens]
        written = encoder.following([text for text in texts if text])
        spelled = iter(written)
        tokens = [next(spelled) if text else None for text in texts]
        known = vocabulary_map.ids.astype(np.int64)
        whole = known >= 0
        for number, ids in enumerate(tokens):
            if ids:
                known[number], whole[number] = ids[0], len(ids) == 1
        alone = np.full(vocabulary_map.steering_size, -1, dtype=np.int64)
        alone[known[whole]] = whole.nonzero()[0]
        stems = np.where(known >= 0, alone[known], -1)
        arrays = known, stems, (known < 0).nonzero()[0]
        return cls(*(torch.from_numpy(array).to(device) for array in arrays))


def _text(token: bytes | None) -> str:
    """A token's text, "" where it has none of its own."""
    try:
        return (token or b"").decode("utf-8")
    except UnicodeDecodeError:
        return ""
