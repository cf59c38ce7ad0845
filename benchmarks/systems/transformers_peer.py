"""transformers on the same requests: `generate` in static batches, steered or not, and continuous batching.

The models are built from the same configuration and seed as ours, so the weights are equal.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import (
    AutoModelForCausalLM,
    ContinuousBatchingConfig,
    DynamicCache,
    GenerationConfig,
    PretrainedConfig,
)

from benchmarks.workloads.jobs import SEED, Job

_PAGE = 256


def plain_model(
    config: PretrainedConfig, *, dtype: torch.dtype = torch.bfloat16, device: str = "cpu", seed: int = SEED
) -> Any:
    """The weights of `random_model`, as transformers alone runs them: SDPA attention. No token ends a text."""
    torch.manual_seed(seed)
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            copy.deepcopy(config), dtype=dtype, attn_implementation="sdpa"
        )
    model.generation_config.eos_token_id = None
    return model.eval().requires_grad_(False)


class DeltaProcessor:
    """A `LogitsProcessor` that steers one batch by a delta, whose keys and values it keeps.

    It runs the delta once a step: over the whole prompts first, then over one token a row. Each batch needs a new one.
    """

    def __init__(self, delta: Any, mask: Tensor) -> None:
        self._delta = delta
        self._mask = mask
        self._cache = DynamicCache(config=delta.config)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Steered scores. input_ids: int64 `[rows, length]`, left padded. scores: float32 `[rows, V]`."""
        fresh = input_ids[:, self._cache.get_seq_length() :]
        self._mask = functional.pad(self._mask, (0, input_ids.shape[1] - self._mask.shape[1]), value=1)
        positions = (self._mask.cumsum(-1) - 1).clamp(min=0)
        logits = self._delta(
            input_ids=fresh,
            attention_mask=self._mask,
            position_ids=positions[:, -fresh.shape[1] :],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        steered: Tensor = scores.log_softmax(-1) + logits.float()
        return steered


@torch.inference_mode()
def generate(model: Any, jobs: Sequence[Job], delta: Any = None) -> list[list[int]]:
    """Run one static batch, greedily, to its longest output. Returns the tokens that each job asked for.

    Raises RuntimeError where a row ended early.
    """
    width, longest = max(len(job.prompt) for job in jobs), max(job.tokens for job in jobs)
    tokens = torch.tensor([[0] * (width - len(job.prompt)) + list(job.prompt) for job in jobs])
    mask = torch.tensor([[0] * (width - len(job.prompt)) + [1] * len(job.prompt) for job in jobs])
    tokens, mask = tokens.to(model.device), mask.to(model.device)
    settings = GenerationConfig(do_sample=False, max_new_tokens=longest, pad_token_id=0, use_cache=True)
    processors = [] if delta is None else [DeltaProcessor(delta, mask)]
    found = model.generate(
        tokens, attention_mask=mask, generation_config=settings, logits_processor=processors
    )
    if found.shape[1] != width + longest:
        raise RuntimeError(f"generate ended after {found.shape[1] - width} of {longest} tokens")
    return [row[width : width + job.tokens].tolist() for row, job in zip(found, jobs, strict=True)]


def generate_seconds(model: Any, batches: Sequence[Sequence[Job]], delta: Any = None) -> float:
    """The seconds that these static batches take, one after another."""
    began = time.perf_counter()
    for batch in batches:
        generate(model, batch, delta)
    return time.perf_counter() - began


def continuous(model: Any, jobs: Sequence[Job], at_once: int) -> tuple[float, list[list[int]]]:
    """Run transformers' continuous batching with at most `at_once` requests in a step.

    Returns the seconds, without the set-up, and each job's tokens. Raises RuntimeError where a request fails.
    """
    longest = max(len(job.prompt) + job.tokens for job in jobs)
    settings = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0, use_cache=True)
    limits = ContinuousBatchingConfig(
        page_size=_PAGE,
        # Room for all requests at once. By default it takes most of the machine's memory.
        num_blocks=len(jobs) * (longest // _PAGE + 1),
        max_batch_tokens=512,
        max_requests_per_batch=at_once,
        # Repeats run the same prompts, which must not be found.
        allow_block_sharing=False,
    )
    results: dict[str, list[int]] = {}
    with model.continuous_batching_context_manager(
        generation_config=settings, continuous_batching_config=limits
    ) as manager:
        began = time.perf_counter()
        for number, job in enumerate(jobs):
            manager.add_request(list(job.prompt), request_id=str(number), max_new_tokens=job.tokens)
        while len(results) < len(jobs):
            output = manager.get_result(timeout=1)
            if output is None and not manager.is_running():
                raise RuntimeError("transformers' generation thread ended early")
            if output is not None and output.error is not None:
                raise RuntimeError(f"transformers' continuous batching: {output.error}")
            if output is not None and output.is_finished():
                results[output.request_id] = output.generated_tokens
        seconds = time.perf_counter() - began
    for number, job in enumerate(jobs):
        if len(results[str(number)]) != job.tokens:
            raise RuntimeError(f"request {number} got {len(results[str(number)])} of {job.tokens} tokens")
    return seconds, [results[str(number)] for number in range(len(jobs))]
