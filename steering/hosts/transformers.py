"""Steering inside transformers: a `LogitsProcessor` for plain `generate`.

    session = session_for(model, tokenizer)
    session.attach(load_adapter("forget", "path/to/adapter"))
    inputs = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt")
    with SteeringLogitsProcessor(session, [SteeringSpec("forget")], **inputs) as processor:
        output = model.generate(**inputs, logits_processor=[processor])

It steers exactly as the engine does. transformers runs the base, so a batch is as fast as `generate` is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import LogitsProcessor

from mapping_cache import canonical_vocabulary
from steering.session import Distributions, Span, SteeringSession
from steering.specs import SteeringSpec

Steering = Sequence[SteeringSpec] | Sequence[Sequence[SteeringSpec]]


def session_for(model: Any, tokenizer: Any) -> SteeringSession:
    """A session for a causal language model of transformers and its tokenizer.

    Raises UnsupportedTokenizerError for a tokenizer whose tokens cannot be read as bytes.
    """
    width = int(model.get_output_embeddings().weight.shape[0])
    return SteeringSession(canonical_vocabulary(tokenizer, width), model.device)


class SteeringLogitsProcessor(LogitsProcessor):  # type: ignore[misc]
    """Steers one call of `generate`. Leaving its `with` block frees what it holds.

    input_ids: int64 `[prompts, length]`, as `generate` gets them. steering: the adapters for every prompt, or one list
    of adapters for each prompt. attention_mask: `[prompts, length]`, 0 for padding on the left; without it no prompt is
    padded. num_return_sequences: as `generate` gets it.

    It comes behind the processors that `generate` makes for penalties and minimum lengths, and before temperature,
    top-k and top-p. Tokens that earlier processors exclude stay excluded. A fault in a row's steering, and scores that
    are not finite, end the call with an error. Beam search and assisted decoding are refused. Raises ValueError for
    arguments that do not fit together, and InvalidRequestError for an adapter that the session does not have.
    """

    def __init__(
        self,
        session: SteeringSession,
        steering: Steering,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        num_return_sequences: int = 1,
    ) -> None:
        prompts = input_ids.tolist()
        self._session = session
        self._padding = _padding(attention_mask, input_ids)
        self._copies = num_return_sequences
        self._tokens: list[list[int]] = []
        specs = _specs_by_prompt(steering, len(prompts))
        self._rows = []
        try:
            for number, prompt in enumerate(prompts):
                for _ in range(num_return_sequences):
                    self._tokens.append(prompt[self._padding[number] :])
                    self._rows.append(session.open(self._tokens[-1], specs[number]))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SteeringLogitsProcessor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the adapters' keys and values. The processor cannot be used any more."""
        for row in self._rows:
            self._session.close(row)
        self._rows = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """The steered scores, float32 `[rows, V]`. input_ids: int64 `[rows, length]`; scores: `[rows, V]`."""
        self._extend(input_ids.tolist())
        spans = [
            Span(row, range(len(tokens), len(tokens) + 1))
            for row, tokens in zip(self._rows, self._tokens, strict=True)
        ]
        # Earlier processors may have excluded tokens. A mean over excluded tokens alone would be NaN.
        excluded = scores == -torch.inf
        logits = scores.float().masked_fill(excluded, torch.finfo(torch.float32).min)
        distributions = self._session.steer(spans, logits)
        self._raise_faults(distributions)
        # A copy, because tensors made in inference mode must not be changed by the processors that follow.
        return distributions.steered.masked_fill(excluded, -torch.inf).clone()

    def _raise_faults(self, distributions: Distributions) -> None:
        """Raise the first fault of a row, if there is one, and close this processor."""
        faults = dict(distributions.faults)
        finite = torch.isfinite(distributions.steered.amax(-1)).tolist()
        for number, row in enumerate(self._rows):
            if not finite[number]:
                faults.setdefault(row, ValueError(f"the scores of row {number} are not finite numbers"))
            if row in faults:
                row.invalidate()
        for error in faults.values():
            self.close()
            raise error

    def _extend(self, ids: Sequence[list[int]]) -> None:
        """Append each row's new tokens."""
        if not self._rows:
            raise RuntimeError("this processor is closed; each call of generate needs its own")
        if len(ids) != len(self._rows):
            raise ValueError(
                f"generate runs {len(ids)} rows where {len(self._rows)} were prepared: beam search is not steered "
                "(num_beams must be 1), and num_return_sequences must be the processor's own"
            )
        for number, (tokens, row) in enumerate(zip(self._tokens, ids, strict=True)):
            current = row[self._padding[number // self._copies] :]
            if current[: len(tokens)] != tokens:
                raise ValueError(
                    f"the earlier tokens of row {number} have changed: "
                    "beam search and assisted decoding are not steered"
                )
            tokens.extend(current[len(tokens) :])


def _padding(attention_mask: Tensor | None, input_ids: Tensor) -> list[int]:
    """The number of padding tokens on the left of each prompt."""
    if attention_mask is None:
        return [0] * len(input_ids)
    if attention_mask.shape != input_ids.shape:
        raise ValueError(
            f"attention_mask: its shape is {list(attention_mask.shape)}, that of input_ids {list(input_ids.shape)}"
        )
    mask = attention_mask.bool()
    if (mask[:, :-1] & ~mask[:, 1:]).any():
        raise ValueError(
            "attention_mask: a prompt is padded on the right; generate needs padding_side='left'"
        )
    if not mask[:, -1].all():
        raise ValueError("attention_mask: a prompt has no tokens")
    return cast(list[int], torch.sum(~mask, dim=1).tolist())


def _specs_by_prompt(steering: Steering, prompts: int) -> Sequence[Sequence[SteeringSpec]]:
    if all(isinstance(spec, SteeringSpec) for spec in steering):
        return [cast(Sequence[SteeringSpec], steering)] * prompts
    if len(steering) != prompts:
        raise ValueError(f"steering: it has lists for {len(steering)} prompts, input_ids has {prompts}")
    return cast(Sequence[Sequence[SteeringSpec]], steering)
