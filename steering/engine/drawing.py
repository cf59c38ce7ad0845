"""Draws the next tokens of a step, and collects the log probabilities of scored prompts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from steering.engine.constraint import constrain
from steering.engine.drawn import Drawn, drawn_of
from steering.engine.ending import EndRules
from steering.engine.sampler import SamplingRow, sample
from steering.engine.scheduler import Chunk
from steering.engine.sequence import SequenceState
from steering.session import Distributions
from steering.session.logprobs import token_logprobs


@dataclass(frozen=True, slots=True)
class Placed:
    """A chunk, and the places of its wanted positions among the step's logits."""

    chunk: Chunk
    places: range

    @property
    def sequence(self) -> SequenceState:
        """The chunk's sequence."""
        return self.chunk.sequence


def with_places(chunks: Iterable[Chunk]) -> list[Placed]:
    """Each chunk with its places, in order."""
    found: list[Placed] = []
    place = 0
    for chunk in chunks:
        found.append(Placed(chunk, range(place, place + chunk.wanted)))
        place += chunk.wanted
    return found


def draw(
    ends: Distributions,
    sequences: Sequence[SequenceState],
    uniforms: Sequence[float],
    rules: EndRules,
    kl_every: int,
) -> tuple[Tensor, Drawn]:
    """The next token of each sequence, int64 `[sequences]`, and the results on their way to the host.

    ends: the distributions at the sequences' ends. uniforms: each sequence's random number in [0, 1).
    """
    forbidden = [rules.forbidden(sequence) for sequence in sequences]
    rows = [
        SamplingRow(
            params=sequence.request.sampling,
            prompt=sequence.request.prompt_ids,
            generated=sequence.generated if sequence.request.sampling.penalises else (),
            uniform=uniform,
            # A grammar's mask excludes them itself, unless only they are possible.
            forbidden=() if sequence.constraint else banned,
        )
        for sequence, uniform, banned in zip(sequences, uniforms, forbidden, strict=True)
    ]
    scores = constrain(ends.steered, [sequence.constraint for sequence in sequences], forbidden)
    tokens = sample(scores, rows)
    return tokens, drawn_of(ends, tokens, sequences, kl_every)


def score_prompts(placed: Iterable[Placed], distributions: Distributions) -> None:
    """Collect the log probabilities of the prompt tokens that requests asked for."""
    asked: list[tuple[int, int, int]] = []
    owners: list[SequenceState] = []
    for each in placed:
        sequence = each.sequence
        if not sequence.scores_prompt:
            continue
        if not sequence.prompt_logprobs:
            sequence.prompt_logprobs.append(None)
        count = sequence.request.sampling.prompt_logprobs or 0
        for place, length in zip(each.places, each.chunk.span.lengths, strict=True):
            if length < sequence.prompt_length:
                asked.append((place, sequence.tokens[length], count))
                owners.append(sequence)
    for sequence, entry in zip(owners, token_logprobs(distributions, asked), strict=True):
        sequence.prompt_logprobs.append(entry)
