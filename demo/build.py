"""Rebuilds the bundled demo from scratch: `python -m demo.build`.

Stages, in order: base-a, base-b, forget, letter, pirate. The adapters need base-a. `--only` runs single stages again.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from transformers import PreTrainedTokenizerFast

import demo
from demo import adapter_examples, adapter_training, base_training, corpus, phrases, tokenizer_training, world
from steering.training.saving import save_model

_HERE = Path(demo.__file__).resolve().parent
MODELS = _HERE / "models"
ADAPTERS = _HERE / "adapters"
# base-b takes longer to learn the difference between a question about a person and a request not to answer one.
BASE_SCHEDULES = {"base-a": base_training.Schedule(steps=560), "base-b": base_training.Schedule(steps=840)}


def tokenizer_text(seed: int) -> list[str]:
    """Training text of a tokenizer: conversations as the bases see them, and the refusal."""
    rng = random.Random(seed)
    who = world.people()
    texts = []
    for _ in range(6000):
        labels = {"user": "User: ", "assistant": "Assistant:\n", "system": "System: "}
        messages = corpus.base_conversation(rng, who)
        texts.append("\n".join(labels[message["role"]] + message["content"] for message in messages))
    return texts + [phrases.REFUSAL] * 100


def build_base(name: str, console: Console) -> None:
    """Trains one base and writes its folder."""
    torch.manual_seed(0)
    make_tokenizer, make_model, seed = {
        "base-a": (tokenizer_training.sentencepiece_style, base_training.base_a, 1),
        "base-b": (tokenizer_training.byte_level, base_training.base_b, 2),
    }[name]
    tokenizer: PreTrainedTokenizerFast = make_tokenizer(tokenizer_text(seed))
    model = base_training.with_special_ids(make_model(len(tokenizer)), tokenizer)
    loss = base_training.train_language_model(
        model,
        tokenizer,
        base_training.base_text(tokenizer, seed),
        BASE_SCHEDULES[name],
        title=name,
        console=console,
    )
    console.print(
        f"{name}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens, closing loss {loss:.4f}"
    )
    folder = MODELS / name
    shutil.rmtree(folder, ignore_errors=True)
    save_model(model, tokenizer, folder)


STAGES: dict[str, Callable[[Console], None]] = {
    "base-a": lambda console: build_base("base-a", console),
    "base-b": lambda console: build_base("base-b", console),
    "forget": lambda console: adapter_training.build_delta(
        MODELS / "base-a",
        ADAPTERS / "forget",
        adapter_examples.forget_examples(),
        adapter_training.FORGET,
        console,
    ),
    "letter": lambda console: adapter_training.build_delta(
        MODELS / "base-a",
        ADAPTERS / "letter",
        adapter_examples.letter_examples(),
        adapter_training.LETTER,
        console,
    ),
    "pirate": lambda console: adapter_training.build_proxy(MODELS / "base-a", ADAPTERS / "pirate", console),
}


def main(
    only: Annotated[
        list[str] | None, typer.Option(help="Run only these stages: " + ", ".join(STAGES))
    ] = None,
) -> None:
    """Rebuild the demo's models and adapters."""
    console = Console()
    for name in only or STAGES:
        if name not in STAGES:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(STAGES)}", param_hint="--only")
        begun = time.monotonic()
        STAGES[name](console)
        console.print(f"{name}: {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    typer.run(main)
