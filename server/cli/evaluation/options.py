"""The options of `trimtab evaluate` and `trimtab evaluate sweep`, in groups that both share."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mapping_cache import DEFAULT_MIN_SIMILARITY
from server.cli.map import FormName, FormOption, MethodName, MethodOption, SimilarityOption
from server.cli.options import DEVICE_OPTION, DTYPE_OPTION, Alpha, check_bridge

if TYPE_CHECKING:
    from steering.evaluation import Setting

BASE_OPTION = typer.Option(help="The base: a folder, a GGUF file or a Hugging Face id.")
ADAPTER_OPTION = typer.Option(help="The folder of the adapter that steers the base.")
SeedOption = Annotated[int, typer.Option(help="Seed of the controls and of the splits.")]


class UnmatchedChoice(StrEnum):
    """The shift of tokens without a match: neutral (the shift is centred, then filled with 0) or zero (not centred)."""

    neutral = "neutral"
    zero = "zero"


@dataclass(frozen=True, slots=True)
class EvaluationDataOptions:
    """The sets to measure on."""

    data: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=FILE or FILE: JSON lines with prompt and response, or messages, or plain text. "
            "May be given several times."
        ),
    ] = None
    tofu: Annotated[Path | None, typer.Option(help="A folder with TOFU's four perturbed sets.")] = None
    oracle: Annotated[
        str | None,
        typer.Option(
            help="A model that never saw the forgotten texts; forget quality is measured against it."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """How many examples are measured, and how answers are compared with them."""

    limit: Annotated[int | None, typer.Option(min=1, help="At most this many examples of each set.")] = None
    max_tokens: Annotated[int, typer.Option(min=1, help="The maximum length of an answer, in tokens.")] = 64
    answer_pattern: Annotated[
        str | None,
        typer.Option(
            help="A regular expression; exact match compares the texts of its last match: "
            r"'####\s*(.+)' for GSM8K's answers."
        ),
    ] = None


@dataclass(frozen=True, slots=True)
class SettingOptions:
    """How the adapter steers the base; None is the adapter's own value."""

    alpha: Alpha = None
    bridge: Annotated[
        str | None, typer.Option(help="The bridge, such as map or rescore; by default the adapter's own.")
    ] = None
    method: MethodOption = MethodName.pm_mined
    form: FormOption = FormName.bytes
    min_similarity: SimilarityOption = DEFAULT_MIN_SIMILARITY
    unmatched: Annotated[
        UnmatchedChoice | None,
        typer.Option(
            help="Whether the shift is centred (neutral) or not (zero); by default the adapter's own."
        ),
    ] = None
    top_k: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Shift only the base's k most likely tokens; 0 shifts all; by default the adapter's own.",
        ),
    ] = None

    def setting(self) -> Setting:
        """The setting. Raises `typer.BadParameter` if there is no such bridge."""
        bridge = None if self.bridge is None else check_bridge(self.bridge)
        from steering.evaluation import Setting

        return Setting(
            alpha=self.alpha,
            bridge=bridge,
            method=self.method.value,
            form=self.form.value,
            min_similarity=self.min_similarity,
            unmatched=self.unmatched.value if self.unmatched else None,
            top_k=self.top_k,
        )


@dataclass(frozen=True, slots=True)
class OutputOptions:
    """The files to write."""

    json_file: Annotated[
        Path | None,
        typer.Option(
            "--json", help="Write all figures to this file; - prints them to stdout, without the table."
        ),
    ] = None
    png_file: Annotated[
        Path | None, typer.Option("--png", help="Draw the picture to this file (needs the extra: plots).")
    ] = None


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Where the models run, and how many requests at once."""

    device: Annotated[str, DEVICE_OPTION] = "auto"
    dtype: Annotated[str, DTYPE_OPTION] = "auto"
    max_num_seqs: Annotated[int, typer.Option(min=1, help="The most requests that run at once.")] = 32
