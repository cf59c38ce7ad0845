"""One request on its way through the engine: the only mutable noun."""

from __future__ import annotations

import random

from steering.steerers.steerer import SteeringRow
from steering.types import Request, ResolvedSteering, TokenLogprob


class Sequence:
    """A running or waiting request: its tokens, its pages and how far its keys and values are computed."""

    def __init__(
        self, request: Request, steering: tuple[ResolvedSteering, ...], rows: list[SteeringRow]
    ) -> None:
        self.request = request
        self.steering = steering
        self.rows = rows
        self.tokens: list[int] = list(request.prompt_ids)
        self.prompt_length = len(self.tokens)
        self.pages: list[int] = []
        self.computed = 0
        self.started = False
        self.constraint = None if request.constraint is None else request.constraint.start()
        self.prompt_logprobs: list[TokenLogprob | None] = []
        # Python's generator, not torch's: one uniform number a step, cheap to make and free of the device.
        self.generator = random.Random(request.sampling.seed)

    @property
    def generated(self) -> list[int]:
        """Tokens after the prompt."""
        return self.tokens[self.prompt_length :]

    @property
    def generated_count(self) -> int:
        """How many tokens came after the prompt."""
        return len(self.tokens) - self.prompt_length

    @property
    def scores_prompt(self) -> bool:
        """True while the prompt's own log probabilities are still owed."""
        return self.request.sampling.prompt_logprobs is not None and self.generated_count == 0

    def start(self) -> str:
        """Mark the end of its first wait; returns the request's id."""
        self.started = True
        return self.request.request_id

    def forget_computed(self) -> None:
        """Back to the start after preemption; tokens stay, keys and values are recomputed."""
        self.computed = 0
        self.prompt_logprobs = []
        for row in self.rows:
            row.reset()
