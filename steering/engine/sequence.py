"""A request on its way through the engine. Requests and outputs are immutable; this is what changes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch

from steering.device.side_stream import SideStream
from steering.engine.request import Request
from steering.model.kv_cache import KVCache
from steering.session.logprobs import TokenLogprob
from steering.session.row import SteeredRow


class SequenceState:
    """A waiting or running request: its tokens, its pages, and how far its keys and values are computed.

    `tokens` is the list that `row`, its row in the steering session, reads. `cached_tokens`: how many of the prompt's
    tokens the prefix cache had when it was first admitted.
    """

    def __init__(self, request: Request, row: SteeredRow, tokens: list[int]) -> None:
        self.request = request
        self.row = row
        self.tokens = tokens
        self.prompt_length = len(tokens)
        self.pages: list[int] = []
        self.computed = 0
        self.started = False
        self.cached_tokens = 0
        self.constraint = None if request.constraint is None else request.constraint.start()
        self.prompt_logprobs: list[TokenLogprob | None] = []
        # Python's generator, not torch's: one uniform number a step is cheap, and independent of the device.
        self.generator = random.Random(request.sampling.seed)

    @property
    def generated(self) -> list[int]:
        """The tokens after the prompt."""
        return self.tokens[self.prompt_length :]

    @property
    def generated_count(self) -> int:
        """The number of tokens after the prompt."""
        return len(self.tokens) - self.prompt_length

    def completions(self, sequences: Sequence[Sequence[int]]) -> Iterator[int]:
        """The last token of each of `sequences` whose other tokens end the generated ones."""
        for tokens in sequences:
            start = len(self.tokens) - len(tokens) + 1
            if start >= self.prompt_length and self.tokens[start:] == list(tokens[:-1]):
                yield tokens[-1]

    @property
    def scores_prompt(self) -> bool:
        """True until the prompt's log probabilities have been returned."""
        return self.request.sampling.prompt_logprobs is not None and self.generated_count == 0

    @property
    def is_checked(self) -> bool:
        """False while its keys and values may be NaN: only the scores at its end tell."""
        is_decoding = self.generated_count > 0 and self.computed >= len(self.tokens) - 1
        return is_decoding or not self.pages

    def start(self) -> str:
        """Mark that it has run for the first time. Returns the request's id."""
        self.started = True
        return self.request.request_id

    def forget_computed(self) -> None:
        """Start over after a preemption. The tokens stay; keys and values are computed again."""
        self.computed = 0
        self.prompt_logprobs = []
        self.row.reset()


@torch.inference_mode()
def hide(cache: KVCache, side: SideStream, sequence: SequenceState) -> None:
    """Hide a sequence's keys and values from others: they are not finite, or not known to be. cache: the base's."""
    cache.invalidate(sequence.pages)
    sequence.row.invalidate()
    side.forbid_overlap()
