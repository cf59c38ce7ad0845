"""Naive models, and naive adapters made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import AutoModelForCausalLM
from transformers.models.auto.tokenization_auto import AutoTokenizer

from mapping_cache import CanonicalVocabulary, VocabularyMap, build_map, canonical_vocabulary


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

    def logprobs(self, ids: Sequence[int]) -> torch.Tensor:
        """`[V]`: the log probabilities of the token after `ids`."""
        return self.logits(ids)[-1].log_softmax(-1)


@dataclass
class NaiveAdapter:
    """One or two naive models and how their scores combine; the settings are a request's."""

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
        """The `rescore` bridge's score over the steering vocabulary, `[len, V]`.

        0 is a token without any effect: for one model the uniform distribution, for two models equal probabilities.
        """
        scores = [model.logits(encoded).log_softmax(-1) for model in self.models]
        return scores[0] + math.log(scores[0].shape[-1]) if len(scores) == 1 else scores[0] - scores[1]

    def sum_from(self, encoded: Sequence[int], start: int) -> float:
        """The sum of the natural scores of `encoded[start:]`, each given the tokens before it.

        The first token of a sequence has no score.
        """
        start = max(start, 1)
        if start >= len(encoded):
            return 0.0
        scores = self.natural(encoded)
        return float(sum(scores[k - 1, encoded[k]] for k in range(start, len(encoded))))
