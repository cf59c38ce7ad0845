"""llama.cpp and Trimtab read the same tokens and the same log probabilities from one GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from steering.model.loading import read_trainable
from steering.model.tokenizer_files import read_tokenizer
from tests.gguf_files import VARIANTS, tiny_gguf_model, write_gguf
from tests.llama_cpp.conftest import Ask, llama_cpp
from tests.models import SAMPLE, tokenizer_byte_level

TEXTS = (
    *filter(None, SAMPLE.splitlines()),
    "In 2024, 1234567 people's   homes\n\n\twere  sold.",
    "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "  leading, trailing  ",
    "🦜🏴‍☠️ e\u0301 ﬁ",
)
# llama.cpp looks GELU up in a table of float16, which only Gemma's layers use.
_TOLERANCE = {"gemma": 0.01, "gemma2": 0.01, "gemma3": 0.01}


def _difference(ask: Ask, model: Any, tokens: Sequence[int], count: int) -> float:
    """The largest difference between log probabilities of the token after `tokens`, over the `count` likeliest."""
    with torch.no_grad():
        ours = model(torch.tensor([tokens])).logits[0, -1].log_softmax(-1)
    body = {"prompt": tokens, "n_predict": 1, "temperature": 0, "n_probs": count, "cache_prompt": False}
    theirs = ask("/completion", body)["completion_probabilities"][0]["top_logprobs"]
    assert len(theirs) == count
    difference: float = max(abs(float(ours[entry["id"]]) - entry["logprob"]) for entry in theirs)
    return difference


# llama.cpp's own loader wants an output matrix of OLMo 2.
@pytest.mark.parametrize(("architecture", "tied"), [each for each in VARIANTS if each != ("olmo2", True)])
def test_every_architecture_has_the_same_scores(tmp_path: Path, architecture: str, tied: bool) -> None:
    tokenizer = tokenizer_byte_level()
    model = tiny_gguf_model(architecture, len(tokenizer), tied=tied)
    path = write_gguf(tmp_path / "model.gguf", model, tokenizer, architecture=architecture)
    tokens = tokenizer.encode(SAMPLE[:200])
    with llama_cpp(path, 256) as ask:
        difference = _difference(ask, read_trainable(str(path)).eval(), tokens, count=50)
    assert difference <= _TOLERANCE.get(architecture, 1e-3)


def test_smollm2_has_the_same_tokens(smollm2: Path) -> None:
    tokenizer = read_tokenizer(str(smollm2))
    with llama_cpp(smollm2, 256) as ask:
        for text in TEXTS:
            body = {"content": text, "add_special": True, "parse_special": True}
            tokens = ask("/tokenize", body)["tokens"]
            assert tokenizer.encode(text) == tokens
            assert tokenizer.decode(tokens) == text


def test_smollm2_has_the_same_scores(smollm2: Path, smollm2_in_float32: Path) -> None:
    """Our weights are those of the quantised file."""
    model = read_trainable(str(smollm2)).eval()
    tokenizer = read_tokenizer(str(smollm2))
    with llama_cpp(smollm2_in_float32, 256) as ask:
        for text in TEXTS:
            assert _difference(ask, model, tokenizer.encode(text), count=50) <= 5e-3
