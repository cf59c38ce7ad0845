"""The results of a step's draw, read back from the device as one tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from steering.device.transfer import OnHost, on_device
from steering.engine.outputs import StepOutput
from steering.engine.sequence import SequenceState
from steering.session.distributions import Distributions
from steering.session.fusion import best, divergence
from steering.session.logprobs import TokenLogprob, from_table, logprob_table


class Drawn:
    """The results of a step at the ends of its sequences, on their way to the host.

    They are one small tensor. The copy starts at once, and `read` waits for it. Call `read` once the device has its
    next work.
    """

    def __init__(
        self,
        ends: Distributions,
        tokens: Tensor,
        *,
        steered: Sequence[int],
        measured: Sequence[int],
        logprobs: Mapping[int, int],
    ) -> None:
        """tokens: int64 `[rows]`, as drawn. steered: rows that can differ from the base. measured: steered rows whose
        divergence is wanted. logprobs: rows whose log probabilities are wanted, with the number of best tokens."""
        self._steered, self._measured, self._logprobs = list(steered), list(measured), dict(logprobs)
        self._rows = len(tokens)
        found = [tokens, torch.isfinite(ends.steered.amax(-1))]
        if steered:
            some = ends.select(self._steered)
            found.append(best(some.steered) != best(some.base))
        if measured:
            some = ends.select(self._measured)
            found.append(divergence(some.steered, some.base))
        self._table_width = 0
        if logprobs:
            rows = list(self._logprobs)
            drawn = tokens.index_select(0, on_device(rows, tokens.device))
            table = logprob_table(ends.select(rows), drawn, max(self._logprobs.values()))
            self._table_width = table.shape[1]
            found.append(table.flatten())
        # float64 holds a token id and a float32 exactly.
        self._found = OnHost(torch.cat([part.double() for part in found]))

    def read(self) -> OutputBuilder:
        """Wait for the device."""
        found = iter(self._found.read())
        tokens = [int(next(found)) for _ in range(self._rows)]
        return OutputBuilder(
            tokens=tokens,
            finite=[bool(next(found)) for _ in range(self._rows)],
            changed={row for row in self._steered if next(found)},
            divergence={row: next(found) for row in self._measured},
            logprobs={
                row: from_table(tokens[row], count, [next(found) for _ in range(self._table_width)])
                for row, count in self._logprobs.items()
            },
        )


@dataclass(frozen=True, slots=True)
class OutputBuilder:
    """Builds the outputs of one step.

    `finite`: False where a row's scores hold NaN or have no finite maximum. `changed`: the steered rows whose likeliest
    token is not the base's. `divergence`: KL(steered || base) of the measured rows, in nats.
    """

    tokens: list[int]
    finite: list[bool]
    changed: set[int]
    divergence: dict[int, float]
    logprobs: dict[int, TokenLogprob]

    def output(
        self, row: int, request_id: str, prompt_logprobs: tuple[TokenLogprob | None, ...] | None
    ) -> StepOutput:
        """The output of a row that goes on. The caller decides whether it ends."""
        return StepOutput(
            request_id=request_id,
            token_ids=(self.tokens[row],),
            logprobs=(self.logprobs[row],) if row in self.logprobs else (),
            prompt_logprobs=prompt_logprobs,
            changed=int(row in self.changed),
            kl=self.divergence.get(row),
        )


def drawn_of(ends: Distributions, tokens: Tensor, sequences: Sequence[SequenceState], kl_every: int) -> Drawn:
    """Start the copy of everything that the sequences' outputs need. tokens: int64 `[sequences]`, as drawn."""
    steered = [row for row, sequence in enumerate(sequences) if sequence.row.is_steered]
    return Drawn(
        ends,
        tokens,
        steered=steered,
        measured=[row for row in steered if sequences[row].generated_count % kl_every == 0],
        logprobs={
            row: sequence.request.sampling.logprobs
            for row, sequence in enumerate(sequences)
            if sequence.request.sampling.logprobs is not None
        },
    )
