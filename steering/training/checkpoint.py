"""The state of a training run on disk: written atomically, and resumed by the same run only."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from steering.training.recipe import HeldOutRecord, History, RunOptions, StepRecord

_PROGRESS = "progress.json"
_STATE = "state"
_BEST = "best.safetensors"


class CheckpointError(RuntimeError):
    """A checkpoint is missing, in the way, broken, or of another run; the message names the folder."""


class Checkpoint:
    """The only checkpoint of a run, in `folder`. `accelerate` writes the weights, optimiser and random state.

    `run` is a fingerprint of the run; a checkpoint with another one is refused.
    """

    def __init__(self, folder: Path, run: str) -> None:
        self.folder = folder
        self._run = run

    def open(self, *, resume: bool) -> History:
        """What the run has done so far: nothing for a new run.

        Raises `CheckpointError` if a new run finds a checkpoint, or a resumed run finds none of its own.
        """
        self._recover()
        if not resume:
            if self.folder.exists():
                raise CheckpointError(
                    f"{self.folder} holds an earlier run: go on with it by resuming, or remove it"
                )
            return History(())
        if not self.folder.exists():
            raise CheckpointError(f"{self.folder}: there is nothing to resume")
        try:
            progress = json.loads((self.folder / _PROGRESS).read_text(encoding="utf-8"))
            run = progress["run"]
            history = History(
                tuple(StepRecord(**each) for each in progress["records"]),
                tuple(HeldOutRecord(**each) for each in progress.get("held_out", ())),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{self.folder}: not a checkpoint: {error}") from error
        if run != self._run:
            raise CheckpointError(f"{self.folder} is of a run with other data or another recipe")
        return history

    def best(self) -> dict[str, torch.Tensor]:
        """The weights that were best on held-out examples; empty before the first measurement."""
        file = self.folder / _BEST
        return load_file(file) if file.exists() else {}

    def load(self, accelerator: Any) -> None:
        """Restore the weights, the optimiser and the random generators."""
        accelerator.load_state(str(self.folder / _STATE))

    def save(self, accelerator: Any, history: History, best: dict[str, torch.Tensor]) -> None:
        """Replace the checkpoint. A run that dies during this leaves the old one intact."""
        fresh = _beside(self.folder, "new")
        if accelerator.is_main_process:
            shutil.rmtree(fresh, ignore_errors=True)
        accelerator.wait_for_everyone()
        with _without_warnings_of_tied_heads():
            accelerator.save_state(str(fresh / _STATE))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            progress = {
                "run": self._run,
                "records": [asdict(record) for record in history.steps],
                "held_out": [asdict(record) for record in history.held_out],
            }
            if best:
                save_file(best, fresh / _BEST)
            (fresh / _PROGRESS).write_text(json.dumps(progress), encoding="utf-8")
            old = _beside(self.folder, "old")
            shutil.rmtree(old, ignore_errors=True)
            if self.folder.exists():
                self.folder.rename(old)
            fresh.rename(self.folder)
            shutil.rmtree(old, ignore_errors=True)
        accelerator.wait_for_everyone()

    def _recover(self) -> None:
        """Undo the first rename of a `save` that died before its second: put the old checkpoint back."""
        old = _beside(self.folder, "old")
        if not self.folder.exists() and old.exists():
            old.rename(self.folder)


def remove_checkpoint(options: RunOptions | None) -> None:
    """Remove the checkpoint of a run whose result is written."""
    if options is not None and options.checkpoint is not None:
        for folder in (
            options.checkpoint,
            *(_beside(options.checkpoint, ending) for ending in ("old", "new")),
        ):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _without_warnings_of_tied_heads() -> Iterator[None]:
    """Silence accelerate's warning about a head tied to its embedding, given at each save; loading ties it again."""
    logger = logging.getLogger("accelerate.utils.other")

    def is_about_anything_else(record: logging.LogRecord) -> bool:
        return "Removed shared tensor" not in record.getMessage()

    logger.addFilter(is_about_anything_else)
    try:
        yield
    finally:
        logger.removeFilter(is_about_anything_else)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}.{ending}")
