"""The bases of `examples.map_experiment`: their vocabularies differ from the bundled adapter's by nature.

Each is the bundled base-b, trained again on the demo's own text with another tokenizer:

- `phrases`: learnt on that text in stretches of up to two words, so that many tokens are longer than the adapter's.
- `gpt2`: the published vocabulary of GPT-2, without the tokens that the text never needs.

A base is trained once and kept in a folder. Training both takes a quarter of an hour on one core.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from demo import base_training, build
from demo.tokenizer_training import finish
from steering.training import save_model

NAMES = ("phrases", "gpt2")
TEXT_SEED = 2


@dataclass(frozen=True, slots=True)
class Training:
    """How long a base is trained, and how many texts are encoded at once."""

    schedule: base_training.Schedule
    chunk: int = 6144


TRAININGS = {
    "full": Training(base_training.Schedule(steps=840)),
    # Seconds: shows that it runs.
    "toy": Training(base_training.Schedule(steps=2, batch_size=4), chunk=16),
}


def base_folder(
    name: str, parent: Path, published: Path | None, console: Console, training: Training
) -> Path | None:
    """The folder of a base in `parent`, trained now if it is not there.

    `published`: the folder of GPT-2's tokenizer. Returns None for `gpt2` where it is None.
    """
    folder = parent / name
    if (folder / "config.json").is_file():
        return folder
    if name == "gpt2" and published is None:
        return None
    torch.manual_seed(0)
    tokenizer = cut(published) if name == "gpt2" and published else learnt(demo_text(), 1280, words=2)
    model = base_training.with_special_ids(base_training.base_b(len(tokenizer)), tokenizer)
    text = base_training.base_text(tokenizer, TEXT_SEED, training.chunk)
    loss = base_training.train_language_model(
        model, tokenizer, text, training.schedule, title=name, console=console
    )
    console.print(f"{name}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens, loss {loss:.4f}")
    save_model(model, tokenizer, folder)
    return folder


def demo_text() -> list[str]:
    """The text that the bundled base-b's tokenizer was trained on."""
    return build.tokenizer_text(TEXT_SEED)


def learnt(texts: Sequence[str], size: int, words: int = 1) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer whose tokens span up to `words` words. Each digit is a token."""
    stretch = Regex(rf"\d| ?\w+(?: \w+){{0,{words - 1}}}| ?[^\w\s]|\s+")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(stretch, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return finish(tokenizer, bos="<|begin|>", eos="<|end|>", unk="<|endoftext|>")


def cut(folder: Path) -> PreTrainedTokenizerFast:
    """A byte-level tokenizer without the tokens that the demo's text never needs. It encodes that text as before."""
    published: Any = AutoTokenizer.from_pretrained(folder).backend_tokenizer
    model = json.loads(published.to_str())["model"]
    kept = {token for text in demo_text() for token in published.encode(text).tokens}
    merges = []
    # A merge needs only parts that earlier merges made. So, going backwards, a token is kept before its parts are.
    for left, right in reversed([tuple(merge) for merge in model["merges"]]):
        if left + right in kept:
            kept |= {left, right}
            merges.append((left, right))
    kept |= set(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: number for number, token in enumerate(sorted(kept, key=model["vocab"].__getitem__))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges[::-1]))
    tokenizer.pre_tokenizer, tokenizer.decoder = published.pre_tokenizer, published.decoder
    return finish(tokenizer, bos="<|begin|>", eos="<|end|>", unk="<|endoftext|>")
