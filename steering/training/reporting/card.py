"""The description in an adapter folder: `adapter.json` for the engine, `README.md` and a picture for people."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from mapping_cache import PlotsUnavailableError, canonical_vocabulary
from steering.examples import EncodedExample, fingerprint
from steering.training.recipe import Recipe, TrainingReport
from steering.training.reporting.picture import draw_losses

_COMMON = {"format": 1, "alpha": 1.0, "bridge": "rescore", "unmatched": "neutral", "top_k": None}
PICTURE = "loss.png"


def describe_model(model: Any, tokenizer: Any, name: str = "") -> dict[str, Any]:
    """A model's entry in the card: its name, architecture, number of parameters and vocabulary."""
    width = int(model.get_output_embeddings().weight.shape[0])
    return {
        "name": Path(name).name if name else "",
        "architecture": model.config.model_type,
        "parameters": int(model.num_parameters()),
        "vocabulary": {"tokens": width, "fingerprint": canonical_vocabulary(tokenizer, width).fingerprint},
    }


def describe_data(
    encoded: Sequence[EncodedExample], held_out: Sequence[EncodedExample] = ()
) -> dict[str, Any]:
    """The data's entry in the card: its fingerprint, the examples by objective, and the response tokens.

    They are those of the examples trained on; held-out ones are only counted.
    """
    described: dict[str, Any] = {
        "fingerprint": fingerprint(encoded),
        "examples": dict(sorted(Counter(each.objective for each in encoded).items())),
        "response_tokens": sum(len(each.ids) - each.start for each in encoded),
    }
    return described | ({"held_out_examples": len(held_out)} if held_out else {})


def write_adapter(
    out: Path,
    settings: dict[str, Any],
    card: dict[str, Any],
    recipe: Recipe,
    report: TrainingReport,
    *,
    console: Console | None = None,
) -> None:
    """Write `adapter.json` with the card, the card as `README.md`, and the loss picture if matplotlib is there.

    The same run writes the same bytes, because the adapter's version is a digest of its files.
    """
    figures: dict[str, Any] = {
        "steps": report.steps,
        "closing_loss": report.loss,
        "closing_terms": report.terms,
    }
    if report.kept:
        figures |= {
            "held_out_loss_by_step": {str(each.step): each.loss for each in report.held_out},
            "kept_step": report.kept.step,
            "kept_held_out_loss": report.kept.loss,
            "kept_held_out_terms": report.kept.terms,
        }
    whole = {
        **card,
        "trained_parameters": report.parameters,
        "recipe": asdict(recipe),
        "figures": figures,
    }
    try:
        draw_losses(report, out / PICTURE, title=out.name)
    except PlotsUnavailableError as error:
        if console is not None:
            console.print(f"no loss picture: {error}")
    _write(out, {**_COMMON, **settings, "card": whole})


def add_to_card(out: Path, part: str, value: Any) -> None:
    """Add a part to the card of an adapter folder that is written, and to its page."""
    description = json.loads((out / "adapter.json").read_text(encoding="utf-8"))
    description["card"][part] = value
    _write(out, description)


def _write(out: Path, description: dict[str, Any]) -> None:
    (out / "adapter.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    page = _page(out.name, str(description["kind"]), description["card"], (out / PICTURE).exists())
    (out / "README.md").write_text(page, encoding="utf-8")


def _page(name: str, kind: str, card: dict[str, Any], drawn: bool) -> str:
    """The card as a page of Markdown."""
    lines = [f"# {name}", "", f"A Trimtab steering adapter: a {kind}.", ""]
    for part, value in card.items():
        title = part.replace("_", " ")
        if not isinstance(value, dict):
            lines += [f"- {title}: {value}", ""]
            continue
        lines += [f"## {title.capitalize()}", ""]
        lines += [f"- {key.replace('_', ' ')}: {_shown(each)}" for key, each in value.items()]
        lines.append("")
    if drawn:
        lines += [f"![The loss at each step]({PICTURE})", ""]
    return "\n".join(lines)


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_shown(each)}" for key, each in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
