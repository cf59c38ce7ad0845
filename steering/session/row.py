"""One sequence of the host as the session knows it, and the positions of it that a step asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from steering.specs import ResolvedSteering
from steering.steerers.state import SteererState


class SteeredRow:
    """One open sequence. `tokens` is the host's own list of base token ids, prompt first; the session only reads it.

    The host appends to `tokens` as it generates. Tokens that a step has read must not change, unless the row is reset.
    """

    def __init__(
        self, tokens: Sequence[int], steering: tuple[ResolvedSteering, ...], states: Sequence[SteererState]
    ) -> None:
        self.tokens = tokens
        self.steering = steering
        self.states = tuple(states)

    @property
    def is_steered(self) -> bool:
        """False where no adapter changes its scores: none was asked for, or all at alpha 0."""
        return bool(self.states)

    def reset(self) -> None:
        """Give all keys and values back. The next step reads the tokens again from the start."""
        for state in self.states:
            state.reset()

    @torch.inference_mode()
    def invalidate(self) -> None:
        """Hide the keys and values of this row from other rows: some are not finite."""
        for state in self.states:
            state.invalidate()


@dataclass(frozen=True, slots=True)
class Span:
    """The positions of a row that a step asks for: after its first `n` tokens, for each n of `lengths`, ascending."""

    row: SteeredRow
    lengths: range
