"""What the speed benchmarks run: models of real shapes with random weights, real tokenizers, and fixed requests."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from benchmarks.stand_ins import make_stand_ins
from mapping_cache import canonical_vocabulary
from steering.adapters import Adapter
from steering.adapters.delta import DeltaShift
from steering.model.attention_check import adopt_paged_attention
from steering.model.forward import TransformersForward
from steering.model.loaded_model import LoadedModel

SEED = 0
TOKENIZERS = Path(__file__).resolve().parents[2] / "shared" / "tokenizers"
QWEN_VOCABULARY = 151_936
LLAMA_VOCABULARY = 32_000
_CONTEXT = 8192
# As the server has its engines measure divergence.
KL_EVERY = 8


def qwen2_half_billion(vocabulary: int = QWEN_VOCABULARY) -> Qwen2Config:
    """Qwen2-0.5B's shape."""
    return Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=896,
        num_hidden_layers=24,
        num_attention_heads=14,
        num_key_value_heads=2,
        intermediate_size=4864,
        tie_word_embeddings=True,
        max_position_embeddings=_CONTEXT,
    )


def llama_seven_billion(vocabulary: int = LLAMA_VOCABULARY) -> LlamaConfig:
    """Llama-2-7B's shape."""
    return LlamaConfig(vocab_size=vocabulary, max_position_embeddings=_CONTEXT)


def delta_fifteen_million() -> LlamaConfig:
    """The shape of the published 15M delta (Wu et al. 2024)."""
    return _delta(hidden=288, layers=6, heads=6, intermediate=768)


def delta_hundred_million() -> LlamaConfig:
    """The shape of the published 110M delta (Wu et al. 2024)."""
    return _delta(hidden=768, layers=12, heads=12, intermediate=2048)


def _delta(hidden: int, layers: int, heads: int, intermediate: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=LLAMA_VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=intermediate,
        tie_word_embeddings=True,
        max_position_embeddings=_CONTEXT,
    )


# By the names that the benchmarks' options have; a base's shape with any vocabulary.
BASES: dict[str, Callable[[int], PretrainedConfig]] = {
    "qwen2-0.5b": qwen2_half_billion,
    "llama-7b": llama_seven_billion,
}
DELTAS: dict[str, Callable[[], PretrainedConfig]] = {
    "15m": delta_fifteen_million,
    "110m": delta_hundred_million,
}


@dataclass(frozen=True, slots=True)
class Tokenizers:
    """A large and a small vocabulary, and whether they are the real ones of Qwen and Llama-2."""

    large: PreTrainedTokenizerFast
    small: PreTrainedTokenizerFast
    real: bool


def read_tokenizers(scratch: Path) -> Tokenizers:
    """Qwen's and Llama-2's tokenizers where they lie beside the checkout, else two trained on the spot in `scratch`."""
    real = (TOKENIZERS / "qwen").is_dir() and (TOKENIZERS / "llama-2").is_dir()
    folder = TOKENIZERS if real else make_stand_ins(scratch, ["qwen", "llama-2"], SEED)
    large, small = (PreTrainedTokenizerFast.from_pretrained(folder / name) for name in ("qwen", "llama-2"))
    return Tokenizers(large, small, real)


def random_model(
    config: PretrainedConfig,
    tokenizer: Any,
    *,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cpu",
    seed: int = SEED,
) -> LoadedModel:
    """A model of this shape with random weights, ready for the engine; its special tokens end nothing."""
    torch.manual_seed(seed)
    with torch.device(device):
        # A copy: which attention function a model uses is noted in its configuration.
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype)
    model.eval().requires_grad_(False)
    loaded = LoadedModel(
        path=f"random {type(config).__name__}",
        model=model,
        forward=TransformersForward(model),
        tokenizer=tokenizer,
        vocabulary=canonical_vocabulary(tokenizer, config.vocab_size),
        vocab_size=config.vocab_size,
        max_model_len=config.max_position_embeddings,
        eos_token_ids=frozenset(),
        device=torch.device(device),
        dtype=dtype,
    )
    return adopt_paged_attention(loaded)


def random_delta(name: str, model: LoadedModel, bridge: str = "map") -> Adapter:
    """A delta adapter around a model that is in memory already."""
    return Adapter(name, f"random-{name}", "delta", Path(), (model,), DeltaShift(), bridge=bridge)


@dataclass(frozen=True, slots=True)
class Job:
    """One request of the mixed workload: its prompt and how many tokens it is to get."""

    prompt: tuple[int, ...]
    tokens: int


def mixed_jobs(count: int, vocabulary: int, seed: int = SEED) -> list[Job]:
    """Requests with prompts and outputs of 16 to 256 tokens, evenly spread; ids below `vocabulary`."""
    rng = random.Random(seed)
    return [
        Job(random_prompt(rng, rng.randint(16, 256), vocabulary), rng.randint(16, 256)) for _ in range(count)
    ]


def random_prompt(rng: random.Random, length: int, vocabulary: int) -> tuple[int, ...]:
    """Random token ids that are not special in any of the tokenizers used here."""
    return tuple(rng.randrange(300, vocabulary) for _ in range(length))


def total_tokens(jobs: Sequence[Job]) -> int:
    """Tokens that a whole workload generates."""
    return sum(job.tokens for job in jobs)
