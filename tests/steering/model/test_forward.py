"""Our pass over the Llama family against transformers' own pass."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, MistralConfig, OPTConfig, PreTrainedConfig, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mapping_cache import canonical_vocabulary
from steering.model.attention import ATTENTION_NAME, register
from steering.model.forward import Forward, FusedForward, TransformersForward, forward_of
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel
from steering.model.pages import PageAllocator
from steering.model.row_input import RowInput
from steering.model.runner import Runner
from tests.models import tokenizer_byte_level

WIDTH = 256
COMMON = {
    "vocab_size": 400,
    "hidden_size": WIDTH,
    "intermediate_size": 512,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}
FAMILY = {
    "llama": LlamaConfig(**COMMON, tie_word_embeddings=True),
    "llama with biases": LlamaConfig(**COMMON, attention_bias=True, mlp_bias=True),
    "llama with long context": LlamaConfig(
        **COMMON, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    ),
    "qwen2": Qwen2Config(**COMMON),
    "mistral": MistralConfig(**COMMON, sliding_window=None),
}


def random_model(config: PreTrainedConfig, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = (
        AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype).eval().requires_grad_(False)
    )
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


def run_in_chunks(model: nn.Module, tokens: list[list[int]]) -> tuple[Forward, torch.Tensor]:
    """The model's pass, and the logits of all tokens of all rows, computed in two packed calls over pages."""
    register()
    model.set_attn_implementation(ATTENTION_NAME)  # type: ignore[operator]
    forward = forward_of(model)
    tokenizer = tokenizer_byte_level()
    loaded = LoadedModel(
        path="random",
        model=model,
        forward=forward,
        tokenizer=tokenizer,
        vocabulary=canonical_vocabulary(tokenizer, 600),
        vocab_size=600,
        max_model_len=64,
        eos_token_ids=frozenset(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    allocator = PageAllocator(64, 4)
    runner = Runner(loaded, KVCache(allocator))
    pages = [allocator.allocate(allocator.pages_for(len(row))) for row in tokens]
    cut = [len(row) // 2 for row in tokens]
    first = runner.forward(
        [RowInput(row[:c], 0, p, 0) for row, c, p in zip(tokens, cut, pages, strict=True)]
    ).split(cut)
    second = runner.forward(
        [RowInput(row[c:], c, p, 0) for row, c, p in zip(tokens, cut, pages, strict=True)]
    ).split([len(row) - c for row, c in zip(tokens, cut, strict=True)])
    return forward, torch.cat([part for pair in zip(first, second, strict=True) for part in pair])


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_computes_what_transformers_does(name: str) -> None:
    model = random_model(FAMILY[name])
    rows = [[(7 * i + 3 * j) % 400 for i in range(5 + 9 * j)] for j in range(3)]
    with torch.inference_mode():
        expected = torch.cat([model(torch.tensor([row])).logits[0] for row in rows])
        forward, found = run_in_chunks(model, rows)
    assert isinstance(forward, FusedForward)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_reduced_precision_stays_near() -> None:
    exact, model = random_model(FAMILY["llama"]), random_model(FAMILY["llama"], torch.bfloat16)
    row = [(5 * i) % 400 for i in range(20)]
    with torch.inference_mode():
        expected = exact(torch.tensor([row])).logits[0]
        _, found = run_in_chunks(model, [row])
    assert float((found - expected).abs().max()) < 0.05 * float(expected.abs().max())


@pytest.mark.parametrize(
    "config",
    [
        MistralConfig(**COMMON, sliding_window=8),
        OPTConfig(
            vocab_size=400, hidden_size=WIDTH, ffn_dim=512, num_hidden_layers=2, num_attention_heads=4,
            max_position_embeddings=64, word_embed_proj_dim=WIDTH,
        ),
    ],
    ids=["a sliding window", "another family"],
)  # fmt: skip
def test_everything_else_runs_its_own_code_on_packed_weights(config: PreTrainedConfig) -> None:
    model = random_model(config)
    row = [(11 * i) % 400 for i in range(24)]
    with torch.inference_mode():
        expected = model(torch.tensor([row])).logits[0]
        forward, found = run_in_chunks(model, [row])
    assert isinstance(forward, TransformersForward)
    assert not [
        layer for layer in model.modules() if type(layer) is nn.Linear and layer.weight.numel() > 1 << 16
    ]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
