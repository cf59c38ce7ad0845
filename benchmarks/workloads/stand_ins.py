"""Tokenizers trained on the spot, for a machine without the published ones."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from benchmarks.workloads.jobs import SEED

_SIZE = 12_000
_LINES = 20_000
_SYLLABLES = "ba be bi ka ke ki la le li ma me mi na ne ni ra re ri sa se si ta te ti".split()


def make_stand_ins(folder: Path, names: Sequence[str]) -> Path:
    """Train a byte-level BPE tokenizer for each name, on a made-up language of its own, and save it in `folder`."""
    for offset, name in enumerate(names):
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=_SIZE,
            special_tokens=["<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(_lines(SEED + offset), trainer)
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>").save_pretrained(
            folder / name
        )
    return folder


def _lines(seed: int) -> Iterator[str]:
    rng = random.Random(seed)
    for _ in range(_LINES):
        yield " ".join("".join(rng.choices(_SYLLABLES, k=rng.randint(1, 5))) for _ in range(10))
