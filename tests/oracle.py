"""The steered distribution, computed the naive way: for every step the whole text is encoded anew, every model does a
whole forward pass of its own, then bridge and fuse. Shares nothing with the engine but the vocabulary maps.
"""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.auto.tokenization_auto import AutoTokenizer

from mapping_cache import CanonicalVocabulary, VocabularyMap, build_map, canonical_vocabulary

BEST_STEERED = 16
BEST_BASE = 4
PLAUSIBLE = 1e-4


class NaiveModel:
    """A Hugging Face model run on one whole sequence at a time, with eager attention and no cache."""

    def __init__(self, path: Path) -> None:
        self.model = AutoModelForCausalLM.from_pretrained(
            path, attn_implementation="eager", dtype=torch.float32
        ).eval()
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path)
        self.size: int = self.model.config.vocab_size
        self._seen: dict[tuple[int, ...], torch.Tensor] = {}

    @cached_property
    def vocabulary(self) -> CanonicalVocabulary:
        return canonical_vocabulary(self.tokenizer, self.size)

    def logits(self, ids: Sequence[int]) -> torch.Tensor:
        """`[len(ids), V]` float32."""
        key = tuple(ids)
        if key not in self._seen:
            with torch.no_grad():
                self._seen[key] = self.model(torch.tensor([key]), use_cache=False).logits[0].float()
        return self._seen[key]


def complete_text(data: bytes, *, final: bool = False) -> str:
    """What of `data` is whole UTF-8 characters; a half one at the end is held back unless `final`."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(data, final)


def ends_inside_character(data: bytes) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    decoder.decode(data)
    return bool(decoder.getstate()[0])


def segments(vocabulary: CanonicalVocabulary, ids: Sequence[int]) -> list[int | bytes]:
    """Base tokens as the ids that are no text and the bytes between those, dummy leading spaces dropped."""
    parts: list[int | bytes] = []
    for token in ids:
        data = vocabulary.tokens[token]
        last = parts[-1] if parts else None
        if data is None:
            parts.append(token)
        elif isinstance(last, bytes):
            parts[-1] = last + data
        else:
            parts.append(data)
    first = True
    for place, part in enumerate(parts):
        if isinstance(part, bytes):
            if vocabulary.dummy_prefix == "always" or (vocabulary.dummy_prefix == "first" and first):
                parts[place] = part[1:] if part.startswith(b" ") else part
            first = False
    return parts


def history(
    base: CanonicalVocabulary,
    steering: PreTrainedTokenizerBase,
    mapped: VocabularyMap,
    ids: Sequence[int],
    *,
    by_text: bool = False,
) -> list[int]:
    """The steering tokenizer's own encoding of the text that the base's `ids` stand for.

    In one vocabulary the ids themselves, unless `by_text`.
    """
    if mapped.is_identity and not by_text:
        return list(ids)
    encoded: list[int] = list(steering.encode(""))
    parts = segments(base, ids)
    for place, part in enumerate(parts):
        if isinstance(part, bytes):
            text = complete_text(part, final=place < len(parts) - 1)
            encoded += (
                steering.encode(text, add_special_tokens=False, split_special_tokens=True) if text else []
            )
        elif mapped.ids[part] >= 0:
            special = int(mapped.ids[part])
            if not (place == 0 and encoded == [special]):
                encoded.append(special)
    return encoded


@dataclass
class NaiveAdapter:
    """One or two naive models and how their scores combine; `alpha`, `bridge` and `top_k` as the request has them."""

    models: tuple[NaiveModel, ...]
    alpha: float = 1.0
    bridge: str = "map"
    top_k: int | None = None
    unmatched: str = "neutral"
    normalisation: str = "base"

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.models[0].tokenizer

    def map_from(self, base: NaiveModel) -> VocabularyMap:
        return build_map(
            base.tokenizer, self.tokenizer, base_size=base.size, steering_size=self.models[0].size
        )

    def raw(self, encoded: Sequence[int]) -> torch.Tensor:
        """The `map` bridge's shift over the steering vocabulary, `[len, V]`."""
        scores = [model.logits(encoded) for model in self.models]
        if self.normalisation == "both":
            scores = [score.log_softmax(-1) for score in scores]
        return scores[0] if len(scores) == 1 else scores[0] - scores[1]

    def natural(self, encoded: Sequence[int]) -> torch.Tensor:
        """The `rescore` bridge's score over the steering vocabulary, `[len, V]`: 0 is what says nothing."""
        scores = [model.logits(encoded).log_softmax(-1) for model in self.models]
        return scores[0] + math.log(scores[0].shape[-1]) if len(scores) == 1 else scores[0] - scores[1]

    def sum_from(self, encoded: Sequence[int], start: int) -> float:
        """Sum of the natural scores of `encoded[start:]`, each given what precedes it; a first token scores nothing."""
        start = max(start, 1)
        if start >= len(encoded):
            return 0.0
        scores = self.natural(encoded)
        return float(sum(scores[k - 1, encoded[k]] for k in range(start, len(encoded))))


class Oracle:
    """One base and what steers it."""

    def __init__(self, base: NaiveModel, *adapters: NaiveAdapter) -> None:
        self.base = base
        self.adapters = adapters
        self.maps = [adapter.map_from(base) for adapter in adapters]

    def base_logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V_base]`, unsteered, of the token after `ids`."""
        return self.base.logits(ids)[-1].log_softmax(-1)

    def shift(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V_base]`: the sum of alpha times each adapter's bridged shift."""
        total = torch.zeros(self.base.size)
        for adapter, mapped in zip(self.adapters, self.maps, strict=True):
            if adapter.alpha == 0:
                continue
            if adapter.bridge == "rescore" and not mapped.is_identity:
                bridged = self._rescored(adapter, mapped, ids)
            else:
                bridged = self._mapped(adapter, mapped, ids)
            if adapter.top_k is not None:
                keep = torch.zeros(self.base.size, dtype=torch.bool)
                keep[self.base_logprobs(ids).topk(adapter.top_k).indices] = True
                bridged = torch.where(keep, bridged, 0.0)
            total += adapter.alpha * bridged
        return total

    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V_base]`: the steered log probabilities of the token after `ids`."""
        return (self.base_logprobs(ids) + self.shift(ids)).log_softmax(-1)

    def greedy(self, ids: Sequence[int], count: int) -> tuple[list[int], list[float]]:
        """`count` greedy tokens after `ids` and their steered log probabilities."""
        text, values = list(ids), []
        for _ in range(count):
            row = self.logprobs(text)
            text.append(int(row.argmax()))
            values.append(float(row.max()))
        return text[len(ids) :], values

    def scored(self, ids: Sequence[int]) -> list[float]:
        """Steered log probabilities of `ids[1:]`, each given what precedes it."""
        return [float(self.logprobs(ids[:end])[ids[end]]) for end in range(1, len(ids))]

    def _encode(self, adapter: NaiveAdapter, mapped: VocabularyMap, ids: Sequence[int]) -> list[int]:
        return history(self.base.vocabulary, adapter.tokenizer, mapped, ids)

    def _mapped(self, adapter: NaiveAdapter, mapped: VocabularyMap, ids: Sequence[int]) -> torch.Tensor:
        encoded = self._encode(adapter, mapped, ids)
        shift = torch.zeros(self.base.size)
        if not encoded:
            return shift
        places = torch.from_numpy(mapped.ids.astype("int64"))
        matched = places >= 0
        scores = adapter.raw(encoded)[-1]
        shift[matched] = scores[places[matched]]
        shift[matched] -= self._mean(adapter, mapped, ids)
        return shift

    def _mean(self, adapter: NaiveAdapter, mapped: VocabularyMap, ids: Sequence[int]) -> float:
        """The matched scores' mean under the base: what unmatched tokens, which get 0, are measured by."""
        encoded = self._encode(adapter, mapped, ids)
        if adapter.unmatched != "neutral" or mapped.is_identity or not encoded:
            return 0.0
        places = torch.from_numpy(mapped.ids.astype("int64"))
        matched = places >= 0
        if not matched.any():
            return 0.0
        scores = adapter.raw(encoded)[-1][places[matched]]
        return float(self.base_logprobs(ids)[matched].softmax(-1) @ scores)

    def _rescored(self, adapter: NaiveAdapter, mapped: VocabularyMap, ids: Sequence[int]) -> torch.Tensor:
        base = self.base_logprobs(ids)
        encoded = self._encode(adapter, mapped, ids)
        spelled = self._spelled(adapter, mapped)
        ratio = adapter.natural(encoded)[-1] if encoded else torch.zeros(mapped.steering_size)
        likely = base.topk(min(BEST_STEERED, len(base))).indices.tolist()
        known = [token for token in likely if spelled[token]]
        mean = 0.0
        if adapter.unmatched == "neutral" and known:
            firsts = ratio[[spelled[token][0] for token in known]]
            mean = float(base[known].softmax(-1) @ firsts)
        shift = torch.tensor([float(ratio[tokens[0]]) if tokens else mean for tokens in spelled])
        best = set()
        for scores, count in ((base + adapter.alpha * shift, BEST_STEERED), (base, BEST_BASE)):
            probs = scores.softmax(-1)
            best |= {t for t in probs.topk(min(count, len(base))).indices.tolist() if probs[t] >= PLAUSIBLE}
        added: dict[int, list[int]] = {}
        for candidate in sorted(best):
            if not self._adds_text(ids, candidate):
                continue
            longer = self._encode(adapter, mapped, [*ids, candidate])
            common = 0
            while common < min(len(encoded), len(longer)) and encoded[common] == longer[common]:
                common += 1
            if common == len(encoded):
                added[candidate] = longer[common:]
                continue
            again = adapter.sum_from(longer, common) - adapter.sum_from(encoded, common)
            shift[candidate] = mean + again
        for candidate, tokens in added.items():
            total = 0.0 if tokens else mean
            for place in range(len(tokens)):
                after = adapter.natural([*encoded, *tokens[:place]])[-1] if place else ratio
                total += float(after[tokens[place]])
                if place:
                    total -= self._zero(adapter, base, encoded, spelled, added, tokens[:place])
            total -= self._zero(adapter, base, encoded, spelled, added, tokens)
            shift[candidate] = total
        return shift

    def _spelled(self, adapter: NaiveAdapter, mapped: VocabularyMap) -> list[list[int]]:
        """Each base token's steering tokens behind other text; by the map, or none, where it is no text."""
        encode = partial(adapter.tokenizer.encode, add_special_tokens=False, split_special_tokens=True)
        found = []
        for token, counterpart in zip(self.base.vocabulary.tokens, mapped.ids.tolist(), strict=True):
            tokens = [counterpart] if counterpart >= 0 else []
            text = (token or b"").decode("utf-8", errors="ignore")
            if text and text.encode() == token:
                for before in ("x\n", "x:", "x"):
                    alone, whole = encode(before), encode(before + text)
                    if whole[: len(alone)] == alone:
                        tokens = whole[len(alone) :] or tokens
                        tokens = [] if adapter.tokenizer.unk_token_id in tokens else tokens
                        break
            found.append(tokens)
        return found

    def _zero(
        self,
        adapter: NaiveAdapter,
        base: torch.Tensor,
        encoded: Sequence[int],
        spelled: list[list[int]],
        added: dict[int, list[int]],
        beginning: list[int],
    ) -> float:
        """What a token after `beginning` is compared with: what the base could say there, as the base weighs it.

        0 where no candidate goes on.
        """
        size = len(beginning)
        going = {c: text[size] for c, text in added.items() if text[:size] == beginning and len(text) > size}
        if not going or not beginning:
            return 0.0
        after = adapter.natural([*encoded, *beginning])[-1]
        weights = base[list(going)].exp().double().clamp(min=1e-30).tolist()
        powers = (adapter.alpha * after[list(going.values())].double()).tolist()
        ends = [c for c, text in added.items() if text == beginning]
        if not ends and size == 1 and any(spelled[c][:1] == beginning for c in going):
            ends = [c for c, text in enumerate(spelled) if text == beginning][-1:]
        for end in ends:
            weights.append(max(float(base[end].exp()), 1e-30))
            powers.append(0.0)
        total = sum(w * math.exp(power) for w, power in zip(weights, powers, strict=True))
        return math.log(total / sum(weights)) / adapter.alpha

    def _adds_text(self, ids: Sequence[int], candidate: int) -> bool:
        """False for special tokens, and where the candidate completes no text or leaves a character half done."""
        after = _last_bytes(self.base.vocabulary, [*ids, candidate])
        if self.base.vocabulary.tokens[candidate] is None or ends_inside_character(after):
            return False
        return complete_text(after) != complete_text(_last_bytes(self.base.vocabulary, ids))


def _last_bytes(vocabulary: CanonicalVocabulary, ids: Sequence[int]) -> bytes:
    last = segments(vocabulary, ids)[-1]
    return last if isinstance(last, bytes) else b""
