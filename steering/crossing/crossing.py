"""The way from a base's vocabulary to a steering model's. Adapters with one tokenizer share it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

import torch

from mapping_cache import CanonicalVocabulary, VocabularyMap
from steering.crossing.encoder import SteeringEncoder
from steering.crossing.first_tokens import FirstTokens
from steering.crossing.history import History, SharedHistory, TextHistory
from steering.crossing.map_tensors import MapTensors
from steering.model.loaded_model import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class TextCrossing:
    """The parts that only two different vocabularies need.

    `specials` maps base special tokens to steering special tokens, where there is a counterpart.
    """

    encoder: SteeringEncoder
    first_tokens: FirstTokens
    specials: Mapping[int, int]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Crossing:
    """A vocabulary map with everything that is derived from it. `by_text` is None over a shared vocabulary.

    `tokenizer` is the steering model's. It is kept because `Crossings` knows it by its id, which must not be reused.
    """

    base: CanonicalVocabulary
    tokenizer: Any
    vocabulary_map: VocabularyMap
    tensors: MapTensors
    by_text: TextCrossing | None

    @classmethod
    def of(
        cls, base: CanonicalVocabulary, device: torch.device, tiny: LoadedModel, vocabulary_map: VocabularyMap
    ) -> Crossing:
        """Derive everything. Takes a second or two where the vocabularies differ and are large."""
        tensors = MapTensors.of(vocabulary_map, device)
        by_text = None
        if not tensors.is_identity:
            encoder = SteeringEncoder(tiny.tokenizer, tiny.vocabulary)
            first_tokens = FirstTokens.of(base, tiny.vocabulary, encoder, vocabulary_map, device)
            counterparts = {token: int(vocabulary_map.ids[token]) for token in base.specials}
            specials = {token: other for token, other in counterparts.items() if other >= 0}
            by_text = TextCrossing(encoder, first_tokens, specials)
        return cls(base, tiny.tokenizer, vocabulary_map, tensors, by_text)

    @property
    def prefix_length(self) -> int:
        """The number of tokens that the steering tokenizer puts before every text."""
        return len(self.by_text.encoder.prefix) if self.by_text else 0

    def new_history(self) -> History:
        """An empty history."""
        if self.by_text is None:
            return SharedHistory()
        return TextHistory(self.base, self.by_text.encoder, self.by_text.specials)


class Crossings:
    """The crossings of one base. Each lives as long as an adapter uses it.

    Any thread. Threads wait for each other while a crossing is made.
    """

    def __init__(self, base: CanonicalVocabulary, device: torch.device) -> None:
        self._base = base
        self._device = device
        self._lock = threading.Lock()
        # The key holds the tokenizer too: two tokenizers of one vocabulary may cut a text differently.
        self._known: WeakValueDictionary[tuple[int, str], Crossing] = WeakValueDictionary()

    def to(self, tiny: LoadedModel, vocabulary_map: VocabularyMap) -> Crossing:
        """The crossing to a steering model's vocabulary, made if it is not known yet."""
        key = id(tiny.tokenizer), vocabulary_map.fingerprint
        with self._lock:
            known = self._known.get(key)
            if known is None or known.vocabulary_map != vocabulary_map:
                known = self._known[key] = Crossing.of(self._base, self._device, tiny, vocabulary_map)
            return known
