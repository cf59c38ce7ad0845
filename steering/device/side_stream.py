"""Where the steering models' passes are queued: behind the base's, or beside them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch


class SideStream(Protocol):
    """Work that may run while the base's pass does. `mark` comes right before the base's pass."""

    def mark(self) -> None:
        """What is queued from now on need not be waited for by the next work beside it."""

    def unmark(self) -> None:
        """The next work must wait for all that is queued by then: it may use pages that were just written to."""

    def beside(self) -> AbstractContextManager[None]:
        """Queue what is called inside beside what was queued since `mark`; whatever comes later waits for it.

        Once a mark: a second time it would run beside what has used its results.
        """


class OneStream:
    """A device that does one thing after another."""

    def mark(self) -> None:
        """Nothing runs beside anything."""

    def unmark(self) -> None:
        """Nothing does in any case."""

    def beside(self) -> AbstractContextManager[None]:
        """Queued like everything else."""
        return nullcontext()


class CudaSideStream:
    """A second stream of a GPU.

    Memory needs no further care: a block that is freed on either stream is taken again only after the next mark or
    wait, when the other is done with it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._mark: torch.cuda.Event | None = None

    def mark(self) -> None:
        """See `SideStream`."""
        self._mark = torch.cuda.current_stream(self._device).record_event()

    def unmark(self) -> None:
        """See `SideStream`."""
        self._mark = None

    @contextmanager
    def beside(self) -> Iterator[None]:
        """See `SideStream`."""
        main = torch.cuda.current_stream(self._device)
        if self._mark is None:
            self._side.wait_stream(main)
        else:
            self._side.wait_event(self._mark)
        self._mark = None
        try:
            with torch.cuda.stream(self._side):
                yield
        finally:
            main.wait_stream(self._side)
