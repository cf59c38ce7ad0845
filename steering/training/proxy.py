"""Trains a proxy adapter (proxy-tuning, Liu et al., 2024): a tuned expert and the untuned anti-expert."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from accelerate.state import PartialState
from rich.console import Console

from steering.examples import EncodedExample
from steering.training.checkpoint import remove_checkpoint
from steering.training.recipe import Recipe, RunOptions, TrainingReport
from steering.training.reporting.card import describe_data, describe_model, write_adapter
from steering.training.saving import save_model
from steering.training.tuning import Lora, tune


def train_proxy(
    model: Any,
    tokenizer: Any,
    encoded: Sequence[EncodedExample],
    out: Path,
    recipe: Recipe,
    *,
    lora: Lora | None = None,
    held_out: Sequence[EncodedExample] = (),
    name: str = "",
    options: RunOptions | None = None,
    console: Console | None = None,
) -> TrainingReport:
    """Tune the expert of a pair whose anti-expert is `model` as it is, and write the pair's folder to `out`.

    The anti-expert is the reference of the losses that need one (KL on kept examples, NPO). With `held_out` examples
    the expert's weights that are best on them are kept. `name` is the model's name in the card. Raises the errors of
    `optimise`.
    """
    untuned = copy.deepcopy(model).cpu()
    expert, report = tune(
        model,
        tokenizer,
        encoded,
        recipe,
        lora=lora,
        held_out=held_out,
        title=out.name,
        options=options,
        console=console,
    )
    if PartialState().is_main_process:
        save_model(untuned, tokenizer, out / "antiexpert")
        save_model(expert, tokenizer, out / "expert")
        settings = {"kind": "proxy", "expert": "expert", "antiexpert": "antiexpert"}
        card: dict[str, Any] = {
            "template": describe_model(untuned, tokenizer, name),
            "lora": {"rank": lora.rank, "alpha": lora.alpha, "dropout": lora.dropout}
            if lora
            else "none: tuned in full",
            "data": describe_data(encoded, held_out),
        }
        write_adapter(out, settings, card, recipe, report, console=console)
        remove_checkpoint(options)
    return report
