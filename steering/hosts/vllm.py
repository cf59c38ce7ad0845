"""Steering inside vLLM: a custom logits processor for its V1 model runner.

    TRIMTAB_ADAPTERS=forget=/adapters/forget \
    vllm serve MODEL --logits-processors steering.hosts.vllm:Steering --logprobs-mode processed_logprobs

A request names adapters in `vllm_xargs`: `{"steering": "forget"}`, or JSON text of an object or a list of objects with
`adapter`, `alpha`, `top_k` and `bridge`. vLLM schedules, runs the base and samples; the scores that it samples from are
steered exactly as our engine steers them.

- `logprobs` are the base's own in vLLM's default mode; `--logprobs-mode processed_logprobs` returns the steered ones.
  `prompt_logprobs` never pass through a logits processor, so a steered request with them is refused.
- Every tensor-parallel rank that samples runs the adapters on the same tokens and adds the same shift, so all ranks
  draw the same token. This has not been run with more than one rank.
- A fault in one request's own part cannot end that request alone here. It is logged, and the request gets the
  end-of-text token.
- Speculative decoding is refused by vLLM itself when a logits processor is given.
"""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from vllm.v1.sample.logits_processor import BatchUpdate, LogitsProcessor, MoveDirectionality

from mapping_cache import canonical_vocabulary
from steering.errors import InvalidRequestError
from steering.hosts.adapter_sources import AdapterSources, WatchedAdapters
from steering.hosts.request_field import read_steering
from steering.model.tokenizer_files import read_tokenizer
from steering.session import Span, SteeredRow, SteeringSession

logger = logging.getLogger(__name__)

FIELD = "steering"
# Requests that left the batch, and whose rows are kept in case that they come back: vLLM preempts and resumes.
_MAX_PARKED = 256


@dataclass(slots=True)
class _Row:
    """One request of vLLM's batch: its row in the session, and vLLM's own list of its output ids.

    `tokens` is the list that the session reads. `params` is what identifies the request when it comes back.
    """

    params: Any
    row: SteeredRow
    tokens: list[int]
    prompt_length: int
    output_ids: list[int]

    def read(self) -> None:
        """Take the output ids that are new. Raises RuntimeError where vLLM has not filled them in yet."""
        new = self.output_ids[len(self.tokens) - self.prompt_length :]
        if -1 in new:
            raise RuntimeError(
                "vLLM has not filled in the sampled tokens: start it with --no-async-scheduling"
            )
        self.tokens.extend(new)


class Steering(LogitsProcessor):  # type: ignore[misc]
    """Steers the requests that ask for it. Without configured adapters it does nothing."""

    def __init__(self, vllm_config: Any, device: torch.device, is_pin_memory: bool) -> None:
        self._rows: dict[int, _Row] = {}
        self._parked: OrderedDict[int, _Row] = OrderedDict()
        self._session: SteeringSession | None = None
        sources = AdapterSources.from_environment(os.environ)
        if sources.is_empty or _is_loaded_twice(vllm_config):
            return
        _check(vllm_config)
        model = vllm_config.model_config
        self._eos = _eos_token_ids(model)
        tokenizer = read_tokenizer(str(model.tokenizer))
        self._session = SteeringSession(canonical_vocabulary(tokenizer, model.get_vocab_size()), device)
        self._adapters = WatchedAdapters(sources, self._session, str(device))

    @classmethod
    def validate_params(cls, sampling_params: Any) -> None:
        """Raise ValueError, which vLLM answers with a 400, for steering that cannot be done."""
        given = _given(sampling_params)
        if given is None:
            return
        # Called in the process of the API server, which has loaded no adapter.
        sources = AdapterSources.from_environment(os.environ)
        read_steering(given, sources.folders())
        if sampling_params.prompt_logprobs is not None:
            raise ValueError("steering: prompt_logprobs are the base's own in vLLM, and cannot be steered")

    def is_argmax_invariant(self) -> bool:
        """Steering changes the likeliest token."""
        return False

    def update_state(self, batch_update: BatchUpdate | None) -> None:
        """Follow vLLM's batch: rows that are removed, added and moved, in this order."""
        if self._session is None or batch_update is None:
            return
        for index in batch_update.removed:
            self._park(self._rows.pop(index, None))
        for index, params, prompt_ids, output_ids in batch_update.added:
            self._park(self._rows.pop(index, None))
            row = self._take(params, prompt_ids, output_ids)
            if row is not None:
                self._rows[index] = row
        for source, target, direction in batch_update.moved:
            moved, replaced = self._rows.pop(source, None), self._rows.pop(target, None)
            if moved is not None:
                self._rows[target] = moved
            if direction == MoveDirectionality.SWAP and replaced is not None:
                self._rows[source] = replaced
            elif replaced is not None:
                self._park(replaced)

    def apply(self, logits: Tensor) -> Tensor:
        """Steer the rows that asked for it, in place. logits: float32 `[rows, V]`."""
        if self._session is None or not self._rows:
            return logits
        indices = sorted(index for index in self._rows if index < len(logits))
        rows = [self._rows[index] for index in indices]
        for row in rows:
            row.read()
        spans = [Span(row.row, range(len(row.tokens), len(row.tokens) + 1)) for row in rows]
        where = torch.tensor(indices, device=logits.device)
        found = self._session.steer(spans, logits.index_select(0, where))
        logits.index_copy_(0, where, found.steered)
        for index, row in zip(indices, rows, strict=True):
            if row.row in found.faults:
                self._end(index, row, found.faults[row.row], logits)
        return logits

    def _take(self, params: Any, prompt_ids: list[int] | None, output_ids: list[int]) -> _Row | None:
        """A row for a request that enters the batch: the one that it had, or a new one; None where nothing steers."""
        given = _given(params)
        if given is None or self._session is None:
            return None
        parked = self._parked.pop(id(params), None)
        if parked is not None:
            # It goes on with the adapter versions that it was admitted with.
            parked.output_ids = output_ids
            return parked
        if prompt_ids is None:
            logger.error("a request without prompt ids (prompt embeddings) is not steered")
            return None
        tokens = list(prompt_ids)
        try:
            row = self._session.open(tokens, read_steering(given, self._session.adapters()))
        except (InvalidRequestError, ValueError) as error:
            # It was valid when it was checked; the adapter has been removed since.
            logger.error("a request is not steered: %s", error)
            return None
        return _Row(params, row, tokens, len(tokens), output_ids)

    def _park(self, row: _Row | None) -> None:
        """Keep a row that left the batch for a while. Its keys and values are given back."""
        if row is None or self._session is None:
            return
        row.row.reset()
        self._parked[id(row.params)] = row
        while len(self._parked) > _MAX_PARKED:
            _, oldest = self._parked.popitem(last=False)
            self._session.close(oldest.row)

    def _end(self, index: int, row: _Row, error: Exception, logits: Tensor) -> None:
        """End a row whose own part has raised: only the end-of-text token is left to it."""
        logger.error("a steered request ends by a fault in its own part", exc_info=error)
        row.row.invalidate()
        row.row.reset()
        logits[index] = float("-inf")
        logits[index, self._eos] = 0.0


def _given(params: Any) -> Any:
    extra: Mapping[str, Any] = params.extra_args or {}
    return extra.get(FIELD)


def _check(vllm_config: Any) -> None:
    """Raise ValueError for settings under which steering would be wrong."""
    model, scheduler = vllm_config.model_config, vllm_config.scheduler_config
    if scheduler.async_scheduling and not model.logits_processors:
        raise ValueError(
            "with async scheduling vLLM fills in sampled tokens only for processors named on its command line: "
            "add --logits-processors steering.hosts.vllm:Steering, or --no-async-scheduling"
        )
    if not str(model.logprobs_mode).endswith("processed_logprobs"):
        logger.warning("logprobs are unsteered: --logprobs-mode processed_logprobs returns the steered ones")


def _is_loaded_twice(vllm_config: Any) -> bool:
    """True for a processor that both the entry point and the command line have named."""
    named = vllm_config.model_config.logits_processors or ()
    marked: bool = getattr(vllm_config, "_trimtab_steers", False)
    if not marked:
        object.__setattr__(vllm_config, "_trimtab_steers", True)
    return marked and bool(named)


def _eos_token_ids(model: Any) -> list[int]:
    configured = model.hf_text_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return [token for token in ids if token is not None] or [0]
