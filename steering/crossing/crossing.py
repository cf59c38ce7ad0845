"""What lies between a base's vocabulary and a steering model's: the same for every adapter with that tokenizer."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

from mapping_cache import CanonicalVocabulary, VocabularyMap
from steering.bridges.map import MapTensors
from steering.crossing.history import History, SharedHistory, SteeringEncoder, TextHistory
from steering.crossing.spelling import Spelling
from steering.model.loaded_model import LoadedModel


@dataclass(frozen=True, slots=True, eq=False)
class TextCrossing:
    """What only two different vocabularies need, which meet in the text.

    `specials`: base special token -> steering special token, of those that have one.
    """

    encoder: SteeringEncoder
    spelling: Spelling
    specials: Mapping[int, int]


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Crossing:
    """A vocabulary map made ready.

    `tokenizer` is the steering model's, kept so that no other has its identity. `by_text` is None where base and
    steering tokens are the same.
    """

    base: CanonicalVocabulary
    tokenizer: Any
    vocabulary_map: VocabularyMap
    tensors: MapTensors
    by_text: TextCrossing | None

    @classmethod
    def of(cls, base: LoadedModel, tiny: LoadedModel, vocabulary_map: VocabularyMap) -> Crossing:
        """Between a base and a steering model. Takes a second or two where the vocabularies differ and are large."""
        tensors = MapTensors.of(vocabulary_map, base.device)
        by_text = None
        if not tensors.is_identity:
            encoder = SteeringEncoder(tiny.tokenizer, tiny.vocabulary)
            spelling = Spelling.of(base.vocabulary, tiny.vocabulary, encoder, vocabulary_map, base.device)
            counterparts = {token: int(vocabulary_map.ids[token]) for token in base.vocabulary.specials}
            specials = {token: other for token, other in counterparts.items() if other >= 0}
            by_text = TextCrossing(encoder, spelling, specials)
        return cls(base.vocabulary, tiny.tokenizer, vocabulary_map, tensors, by_text)

    def new_history(self) -> History:
        """An empty history of the base in the steering vocabulary."""
        if self.by_text is None:
            return SharedHistory()
        return TextHistory(self.base, self.by_text.encoder, self.by_text.specials)


class Crossings:
    """The crossings of one base, each kept while an adapter uses it.

    Any thread; they wait for each other while one is made.
    """

    def __init__(self, base: LoadedModel) -> None:
        self._base = base
        self._lock = threading.Lock()
        # By the tokenizer, too: with one vocabulary, and so one fingerprint, two may still cut a text differently.
        self._known: WeakValueDictionary[tuple[int, str], Crossing] = WeakValueDictionary()

    def to(self, tiny: LoadedModel, vocabulary_map: VocabularyMap) -> Crossing:
        """The crossing to a steering model's vocabulary, made where there is none yet."""
        key = id(tiny.tokenizer), vocabulary_map.fingerprint
        with self._lock:
            known = self._known.get(key)
            if known is None or known.vocabulary_map != vocabulary_map:
                known = self._known[key] = Crossing.of(self._base, tiny, vocabulary_map)
            return known
