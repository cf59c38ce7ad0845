"""The published way to steer across vocabularies (Wu et al. 2024, section 4): one request at a time.

The steering model keeps its keys and values while every new token has an exact counterpart. At a token without one it
drops them and reads the whole text again in its own tokens. The base always keeps its keys and values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from benchmarks.workloads.jobs import Job
from mapping_cache import MatchKind, VocabularyMap


class PublishedLoop:
    """Greedy decoding of a base, steered by a delta of another vocabulary. Both models are made by `plain_model`.

    `read`: tokens that the delta has read again. `exact` and `inexact`: new tokens with and without an exact
    counterpart.
    """

    def __init__(
        self, base: Any, delta: Any, tokenizers: tuple[Any, Any], vocabulary_map: VocabularyMap
    ) -> None:
        self._base, self._delta = base, delta
        self._base_tokenizer, self._delta_tokenizer = tokenizers
        ids = torch.from_numpy(vocabulary_map.ids.astype("int64")).to(base.device)
        self._columns = (ids >= 0).nonzero().squeeze(1)
        self._counterparts = ids[self._columns]
        # Lists, because reading one entry of a tensor takes longer.
        self._ids: list[int] = vocabulary_map.ids.tolist()
        self._is_exact: list[bool] = (vocabulary_map.kind == MatchKind.EXACT).tolist()
        self.reset_counts()

    def reset_counts(self) -> None:
        """Start all counts at 0."""
        self.read = self.exact = self.inexact = 0

    @torch.inference_mode()
    def generate(self, job: Job) -> list[int]:
        """The tokens of one request."""
        tokens = list(job.prompt)
        base_cache, delta_cache = (DynamicCache(config=model.config) for model in (self._base, self._delta))
        base_new, delta_new = tokens, self._encode(tokens)
        for _ in range(job.tokens):
            scores = _last_logits(self._base, base_new, base_cache).log_softmax(-1)
            shift = _last_logits(self._delta, delta_new, delta_cache)
            scores[self._columns] += shift[self._counterparts]
            token = int(scores.argmax())
            tokens.append(token)
            base_new = [token]
            if self._is_exact[token]:
                self.exact += 1
                delta_new = [self._ids[token]]
            else:
                self.inexact += 1
                delta_cache = DynamicCache(config=self._delta.config)
                delta_new = self._encode(tokens)
                self.read += len(delta_new)
        return tokens[len(job.prompt) :]

    def exact_share(self, tokens: Iterable[int]) -> float:
        """The share of these base tokens that have an exact counterpart."""
        return fmean(self._is_exact[token] for token in tokens)

    def _encode(self, tokens: Sequence[int]) -> list[int]:
        text = self._base_tokenizer.decode(tokens, skip_special_tokens=True)
        # A model must read at least one token, even where the tokenizer gives none for the text.
        return list(self._delta_tokenizer.encode(text)) or [0]


def _last_logits(model: Any, new: Sequence[int], cache: Any) -> Tensor:
    """The next token's logits after the `new` tokens, which follow those in the cache. float32 `[V]`."""
    tokens = torch.tensor([new], device=model.device)
    output = model(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
    logits: Tensor = output.logits[0, -1]
    return logits.float()
