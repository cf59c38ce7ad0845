"""How much of an instruction's effect an adapter carries, on the template or on any other base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mapping_cache import canonical_vocabulary
from steering.adapters import Adapter
from steering.examples import EncodedExample, Example
from steering.model.loading import choose_device, read_trainable
from steering.model.tokenizer_files import read_tokenizer
from steering.session import Span, SteeringSession
from steering.specs import SteeringSpec
from steering.training.instruction.answers import AnswerOptions, obtain_answers
from steering.training.instruction.prompts import encode_told

# Prompts that are measured; more make the figure hardly surer.
_MOST_PROMPTS = 64


@dataclass(frozen=True, slots=True)
class Effect:
    """What an instruction does to a base, and how much of it an adapter does without the instruction.

    Over the tokens of the told base's own answers: `kl_without` is KL(told || base) and `kl_with` is KL(told || steered
    base), in nats a token; `agreed_without` and `agreed_with` are the shares of tokens at which the likeliest token is
    the told base's.
    """

    base: str
    prompts: int
    tokens: int
    kl_without: float
    kl_with: float
    agreed_without: float
    agreed_with: float

    @property
    def share(self) -> float:
        """The share of the divergence that the adapter closes; 1 is all of it, below 0 it moves the base away."""
        return 1 - self.kl_with / self.kl_without if self.kl_without else 0.0

    def __str__(self) -> str:
        return (
            f"on {self.base} the adapter carries {self.share:.0%} of the instruction's effect: KL to the told base "
            f"{self.kl_without:.3f} nats a token without it, {self.kl_with:.3f} with it; same likeliest token "
            f"{self.agreed_without:.0%} and {self.agreed_with:.0%} "
            f"({self.prompts} held-out prompts, {self.tokens:,} tokens)"
        )


def effect_rows(
    base: str,
    prompts: Sequence[Example],
    system: str,
    options: AnswerOptions,
    *,
    max_length: int,
    device: str = "auto",
) -> list[EncodedExample]:
    """Prompts with the answers of another base that is told the same; they are not kept. At most 64 prompts are taken.

    Raises `DataError`, `ModelLoadError` and `RequestFailedError`.
    """
    encoded = encode_told(read_tokenizer(base), prompts[:_MOST_PROMPTS], system, max_length=max_length)
    return obtain_answers(base, encoded, options, device=device)


@torch.no_grad()
def measure_effect(
    base: str, adapter: Adapter, rows: Sequence[EncodedExample], *, device: str = "auto"
) -> Effect:
    """The effect on the base `base` over the answers in `rows`, of which at most 64 are read.

    The adapter steers as it does in the engine: by its own bridge, across vocabularies too. Raises what reading a model
    raises, and the fault of a row.
    """
    place = choose_device(device)
    model = read_trainable(base).to(place).eval()
    width = int(model.get_output_embeddings().weight.shape[0])
    session = SteeringSession(canonical_vocabulary(read_tokenizer(base), width), place)
    session.attach(adapter)
    sums = torch.zeros(4, dtype=torch.float64)
    tokens = 0
    for row in rows[:_MOST_PROMPTS]:
        plain = _logits(model, row.ids, row.start)
        told = torch.log_softmax(_logits(model, row.told + row.ids[row.start :], len(row.told)), -1)
        steered = _steered(session, adapter.name, row, plain)
        for index, scores in enumerate((plain, steered)):
            given = torch.log_softmax(scores, -1)
            sums[index] += float((told.exp() * (told - given)).sum())
            sums[2 + index] += float((given.argmax(-1) == told.argmax(-1)).sum())
        tokens += len(told)
    means = (sums / max(tokens, 1)).tolist()
    return Effect(Path(base).name, min(len(rows), _MOST_PROMPTS), tokens, *means)


def _steered(
    session: SteeringSession, adapter: str, row: EncodedExample, logits: torch.Tensor
) -> torch.Tensor:
    """The steered scores from which each token of the answer is drawn, `[tokens, V]`."""
    steered = session.open(list(row.ids), [SteeringSpec(adapter)])
    try:
        distributions = session.steer([Span(steered, range(row.start, len(row.ids)))], logits)
        for error in distributions.faults.values():
            steered.invalidate()
            raise error
        found: torch.Tensor = distributions.steered
        return found
    finally:
        session.close(steered)


def _logits(model: Any, ids: Sequence[int], start: int) -> torch.Tensor:
    """The logits from which each token from `start` on is drawn, float32 `[tokens, V]`."""
    whole = model(input_ids=torch.tensor([list(ids)], device=model.device), use_cache=False).logits
    logits: torch.Tensor = whole[0, start - 1 : -1].float()
    return logits
