"""Tiny random models and tokenizers, made when a test needs them and saved as Hugging Face folders.

The weights have a large variance, so that the next token depends on all tokens before it and greedy choices vary.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma2Config,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    PhiConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gpt2", "gpt_neox", "mistral", "gemma2", "phi")

SAMPLE = """The ferry left the harbour at nine, and the gulls went with it as far as the lighthouse.
Nobody had told the captain that the bridge was closed; he read it in the paper the next morning.
She was born in Lisbon, she said, and the house there still had blue shutters and a fig tree.
"What is your telephone number?" he asked. "It is 555-0142," she answered, "but I'm never at home."
In winter the lake froze over. The children skated on it, and their mothers called them in at dusk.
He wrote three books about rivers, two about bridges and one, which nobody read, about the sea.
The baker's van stopped outside the school every day at half past ten, whatever the weather was.
Once upon a time there was a tailor who measured everything twice and still cut his cloth too short.
We don't know where the letters went; they're not in the drawer, and they weren't in the attic.
A naïve café owner in Köln charged 3€ for tea. Ещё раз, спасибо. 你好,世界。 これは本です。
def area(width, height):\n    return width * height  # square metres\n\n\tprint(area(2, 30))
"""

_CAPPED = ("q_proj.weight", "k_proj.weight", "lm_head.weight")
_CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def tokenizer_sentencepiece(vocab_size: int = 480) -> PreTrainedTokenizerFast:
    """BPE with byte fallback and a dummy prefix, as in Llama-2: <unk>, <s>, </s>, 256 bytes, then pieces."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=True)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - len(first), show_progress=False)
    trained.train_from_iterator(SAMPLE.splitlines(), trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = sorted(model["vocab"], key=model["vocab"].get)
    vocab = {token: number for number, token in enumerate([*first, *pieces])}
    merges = [tuple(merge) for merge in model["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        chat_template=_CHAT_TEMPLATE,
    )


def tokenizer_byte_level(vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE with GPT-2's pre-tokenizer, an end-of-text and an end-of-turn token; encoding adds neither."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([SAMPLE], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
    )


def _config(arch: str, vocab_size: int, special: dict[str, int]) -> PreTrainedConfig:
    llama_like: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "tie_word_embeddings": False,
        **special,
    }
    if arch == "llama":
        return LlamaConfig(**llama_like)
    if arch == "qwen2":
        return Qwen2Config(**llama_like)
    if arch == "qwen3":
        return Qwen3Config(**llama_like, head_dim=16)
    if arch == "mistral":
        return MistralConfig(**llama_like, sliding_window=8)
    if arch == "phi":
        return PhiConfig(**(llama_like | {"num_key_value_heads": 4}))
    if arch == "gemma2":
        return Gemma2Config(
            **llama_like,
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=8,
            attn_logit_softcapping=5.0,
            final_logit_softcapping=10.0,
        )
    if arch == "gpt2":
        return GPT2Config(vocab_size=vocab_size, n_positions=256, n_embd=32, n_layer=2, n_head=4, **special)
    if arch == "gpt_neox":
        return GPTNeoXConfig(**(llama_like | {"num_key_value_heads": 4}))
    raise ValueError(f"no tiny model of architecture {arch}")


def tiny_model(
    arch: str, vocab_size: int, seed: int, special: dict[str, int] | None = None, std: float = 0.25
) -> PreTrainedModel:
    """A random fp32 model of one of ARCHITECTURES; the same arguments give the same weights.

    Gemma-2 has low soft caps and some weights of four times the deviation, so that both caps change the scores.
    """
    config = _config(arch, vocab_size, special or {"bos_token_id": 1, "eos_token_id": 2})
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                parameter.add_(0.1 * noise)
            else:
                # With small weights, a tied embedding makes the model repeat its last token.
                wide = 4.0 if arch == "gemma2" and name.endswith(_CAPPED) else 1.0
                parameter.copy_(noise * std * wide)
    return model.eval()


def save_folder(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> Path:
    """Saves a model and its tokenizer for `from_pretrained`; returns the folder."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
