"""Our own pass over the Llama family, and packed weights, against transformers' own."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, MistralConfig, OPTConfig, PreTrainedConfig, Qwen2Config
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from mapping_cache import canonical_vocabulary
from steering.model import packed_linear
from steering.model.attention import ATTENTION_NAME, register
from steering.model.forward import Forward, FusedForward, TransformersForward, forward_of
from steering.model.kv_cache import KVCache
from steering.model.loaded_model import LoadedModel
from steering.model.packed_linear import LazilyPacked, Product, pack_linears, product
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
    """The pass, and its logits of every token of every row, computed in two packed passes over pages."""
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


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(0, 40),
    width=st.sampled_from([64, 257, 384]),
    height=st.sampled_from([64, 300, 512]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    bias=st.booleans(),
)
def test_a_product_is_the_linear_layer(
    rows: int, width: int, height: int, dtype: torch.dtype, bias: bool
) -> None:
    generator = torch.Generator().manual_seed(rows * width + height)
    weight = torch.randn(height, width, generator=generator).to(dtype)
    offset = torch.randn(height, generator=generator).to(dtype) if bias else None
    states = torch.randn(rows, width, generator=generator).to(dtype)
    with torch.inference_mode():
        found = product(weight, offset)(states)
    expected = nn.functional.linear(
        states.float(), weight.float(), None if offset is None else offset.float()
    )
    assert found.dtype == dtype
    scale = width**0.5 * {torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 4e-2}[dtype]
    torch.testing.assert_close(found.float(), expected, atol=scale, rtol=scale)


def test_packing_leaves_small_and_foreign_layers_alone() -> None:
    class Special(nn.Linear):
        pass

    model = nn.ModuleDict(
        {"small": nn.Linear(8, 8), "special": Special(512, 512), "large": nn.Linear(512, 512)}
    )
    states = torch.randn(3, 512)
    expected = model["large"](states)
    pack_linears(model)
    assert type(model["small"]) is nn.Linear and type(model["special"]) is Special
    assert type(model["large"]) is not nn.Linear
    torch.testing.assert_close(model["large"](states), expected, atol=1e-5, rtol=1e-5)


def test_what_is_packed_when_used_is_packed_once_and_again_after_a_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    packed: list[torch.Tensor] = []

    def counted(weight: torch.Tensor, bias: torch.Tensor | None) -> Product:
        packed.append(weight)
        return product(weight, bias)

    monkeypatch.setattr(packed_linear, "product", counted)
    torch.manual_seed(0)
    weight, states = torch.randn(400, WIDTH), torch.randn(3, WIDTH)
    head = LazilyPacked(weight, None)
    assert not packed
    first, second = head(states), head(states)
    assert len(packed) == 1
    head.release()
    third = head(states)
    assert len(packed) == 2
    assert torch.equal(first, product(weight, None)(states))
    assert torch.equal(first, second)
    assert torch.equal(first, third)
