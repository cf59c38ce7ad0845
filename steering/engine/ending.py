"""When a sequence ends."""

from __future__ import annotations

from dataclasses import dataclass

from steering.engine.outputs import FinishReason
from steering.engine.sequence import SequenceState


@dataclass(frozen=True, slots=True)
class EndRules:
    """The end tokens and the length limit of one base."""

    eos_token_ids: frozenset[int]
    max_model_len: int

    def end_tokens(self, sequence: SequenceState) -> frozenset[int]:
        """The tokens that end a sequence."""
        sampling = sequence.request.sampling
        if sampling.ignore_eos:
            return sampling.stop_token_ids
        return self.eos_token_ids | sampling.stop_token_ids

    def forbidden(self, sequence: SequenceState) -> tuple[int, ...]:
        """The tokens that must not be drawn now: the end tokens before `min_tokens`, and those that would complete a
        bad sequence."""
        sampling = sequence.request.sampling
        tokens = set(sequence.completions(sampling.bad_sequences)) if sampling.bad_sequences else set[int]()
        if sequence.generated_count < sampling.min_tokens:
            tokens |= self.end_tokens(sequence)
        return tuple(sorted(tokens))

    def has_room(self, sequence: SequenceState) -> bool:
        """False where the next token is the last one, whichever it is."""
        after = sequence.generated_count + 1
        return after < sequence.request.sampling.max_tokens and len(sequence.tokens) + 1 < self.max_model_len

    def reason(self, sequence: SequenceState) -> FinishReason | None:
        """Why a sequence ends after its last token; None where it goes on."""
        if sequence.tokens[-1] in self.end_tokens(sequence):
            return "stop"
        limit = sequence.request.sampling.max_tokens
        if sequence.generated_count >= limit or len(sequence.tokens) >= self.max_model_len:
            return "length"
        return None
