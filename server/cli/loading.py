"""Loads engines behind a progress display, for every sub-command that generates."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from server.cli.options import console, fail
from server.config import Config
from steering.errors import AdapterLoadError, ModelLoadError

if TYPE_CHECKING:
    from steering.engine.engine import Engine


def load_with_progress(config: Config) -> dict[str, Engine]:
    """Load the engines that `config` names. Prints the reason and exits with status 1 if one cannot be loaded."""
    # Late, because importing torch and transformers takes seconds that `--help` need not spend.
    from transformers.utils.logging import disable_progress_bar

    from server.engines.loading import load_engines

    # transformers would draw progress bars over this one.
    disable_progress_bar()
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task("starting", total=None)
            return load_engines(config, lambda stage: progress.update(task, description=stage))
    except KeyboardInterrupt:
        # The loading thread may be in native code, which can crash if the interpreter shuts down around it.
        console.print("interrupted")
        os._exit(130)
    except (AdapterLoadError, ModelLoadError) as error:
        fail(str(error), error)
