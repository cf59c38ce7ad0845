"""The check at load that a model computes the same logits on paged attention as on its own attention."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from steering.errors import ModelLoadError
from steering.model.attention import ATTENTION_NAME, register
from steering.model.forward import forward_of
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel, logit_tolerance
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from steering.model.varlen_attention import activate_flash_attention

logger = logging.getLogger(__name__)

PROBE_LENGTH = 12
_PAGE_SIZE = 4


def adopt_paged_attention(loaded: LoadedModel) -> LoadedModel:
    """Switch a model to paged attention for good; returns it with the cheapest forward pass that computes it.

    Compares the logits of PROBE_LENGTH tokens on both attentions, on ours in two chunks. Prefers attention that reads
    pages in place where that works. Raises ModelLoadError when the model ignores the attention function, does not pass
    it the arguments that it needs, or computes other logits on it.
    """
    register()
    model: Any = loaded.model
    length = min(PROBE_LENGTH, loaded.max_model_len)
    tokens = [(7 * i + 3) % loaded.vocab_size for i in range(length)]
    with torch.inference_mode():
        expected = model(torch.tensor([tokens], device=loaded.device), use_cache=False).logits[0].float()
    tolerance = logit_tolerance(loaded.dtype, float(expected.abs().max()))
    try:
        model.set_attn_implementation(ATTENTION_NAME)
        if model.config.get_text_config()._attn_implementation != ATTENTION_NAME:
            raise RuntimeError("it does not take an attention function")
        adopted = replace(loaded, forward=forward_of(model))
        in_place = replace(adopted, varlen=True)
        if activate_flash_attention(loaded.device, loaded.dtype) and _agrees(
            in_place, tokens, expected, tolerance
        ):
            return in_place
        difference = _difference(adopted, tokens, expected)
    except Exception as error:
        raise ModelLoadError(
            f"{loaded.path}: {type(model).__name__} cannot run on paged attention: {error}"
        ) from error
    if not difference <= tolerance:
        raise ModelLoadError(
            f"{loaded.path}: {type(model).__name__} cannot run on paged attention: "
            f"its logits differ by {difference:.3g} from its own attention's"
        )
    return adopted


def _agrees(loaded: LoadedModel, tokens: list[int], expected: Tensor, tolerance: float) -> bool:
    """True where an optional attention kernel runs this model and gives the expected logits."""
    try:
        difference = _difference(loaded, tokens, expected)
    except Exception as error:  # noqa: BLE001 - a kernel that lacks something may raise anything
        logger.info("%s: its attention gathers its pages (%s)", loaded.path, error)
        return False
    return difference <= tolerance


def _difference(loaded: LoadedModel, tokens: list[int], expected: Tensor) -> float:
    """The largest difference between logits computed in two chunks and the expected ones.

    Raises RuntimeError where their shapes differ.
    """
    length = len(tokens)
    cache = KVCache(PageAllocator(PROBE_LENGTH // _PAGE_SIZE, _PAGE_SIZE))
    pages = cache.allocator.allocate(cache.allocator.pages_for(length))
    runner = Runner(loaded, cache)
    half = length // 2
    got = torch.cat(
        [
            runner.forward([RowInput(tokens[:half], 0, pages, 0)]),
            runner.forward([RowInput(tokens[half:], half, pages, 0)]),
        ]
    )
    if got.shape != expected.shape:
        raise RuntimeError(f"it returned logits {list(got.shape)} where {list(expected.shape)} were due")
    return float((got - expected).abs().max())
