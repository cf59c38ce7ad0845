"""Trains the demo's two tokenizers: one in SentencePiece's style with byte fallback, one byte-level BPE."""

from __future__ import annotations

import json
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from demo.corpus import CHAT_TEMPLATE

SENTENCEPIECE_SIZE = 1280
BYTE_LEVEL_SIZE = 1104
_SPACE = "\u2581"


def sentencepiece_style(texts: Sequence[str], size: int = SENTENCEPIECE_SIZE) -> PreTrainedTokenizerFast:
    """BPE over characters, with U+2581 before each word and 256 byte tokens for unseen characters.

    Merges are learnt within words, as in SentencePiece. Digits and punctuation marks are single tokens.
    """
    specials = ["<unk>", "<s>", "</s>"]
    byte_tokens = [f"<0x{value:02X}>" for value in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split("\n", "removed"),
            pre_tokenizers.Split(_SPACE, "merged_with_next"),
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex(r"[^\w\u2581]"), "isolated"),
        ]
    )
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=specials + byte_tokens, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    built = Tokenizer(
        models.BPE(
            vocab=learnt["vocab"],
            merges=[tuple(pair) for pair in learnt["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    built.normalizer = tokenizer.normalizer
    built.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return finish(built, bos="<s>", eos="</s>", unk="<unk>")


def byte_level(texts: Sequence[str], size: int = BYTE_LEVEL_SIZE) -> PreTrainedTokenizerFast:
    """BPE over bytes in GPT-2's alphabet; digits are single tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    # transformers gives every Qwen2 tokenizer this unknown token, whatever its file says. Unless it is in the
    # vocabulary, the tokenizer has one token more than the model scores.
    return finish(tokenizer, bos="<|begin|>", eos="<|end|>", unk="<|endoftext|>")


def finish(tokenizer: Tokenizer, *, bos: str, eos: str, unk: str) -> PreTrainedTokenizerFast:
    """Adds the special tokens, a template that starts every text with `bos`, and the chat template."""
    tokenizer.add_special_tokens([unk, bos, eos])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    names = {"bos_token": bos, "eos_token": eos, "pad_token": eos, "unk_token": unk}
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=512, clean_up_tokenization_spaces=False, **names
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
