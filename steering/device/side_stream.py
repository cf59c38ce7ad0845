"""The stream of the steering models' passes: the base's own, or a second one that overlaps with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import torch


class SideStream(Protocol):
    """A queue for work that may run at the same time as the base's pass."""

    def allow_overlap(self) -> None:
        """Let the next overlapped work start without waiting for anything that is queued from now on.

        Called right before the base's pass. Holds for the next `overlapped` block only.
        """

    def forbid_overlap(self) -> None:
        """Make the next overlapped work wait for everything that is queued by then.

        Called when pages were just written that the work may use.
        """

    def overlapped(self) -> AbstractContextManager[None]:
        """Queue the block's work to overlap with the work queued since `allow_overlap`. Work queued later waits for it.

        Without another `allow_overlap`, a second block waits for everything before it: it must not overlap with work
        that has used the first block's results.
        """


class NoSideStream:
    """A device that runs all work in the order in which it is queued."""

    def allow_overlap(self) -> None:
        """Do nothing: no work overlaps on this device."""

    def forbid_overlap(self) -> None:
        """Do nothing: no work overlaps on this device."""

    def overlapped(self) -> AbstractContextManager[None]:
        """Queue the block's work like any other."""
        return nullcontext()


class CudaSideStream:
    """A second stream of a GPU.

    Memory needs no further care. A memory block that is freed on either stream is reused only after the next
    `allow_overlap` or wait, when the other stream has finished with it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)
        self._overlap_from: torch.cuda.Event | None = None

    def allow_overlap(self) -> None:
        """Record an event on the main stream; the next overlapped work waits for nothing behind it."""
        self._overlap_from = torch.cuda.current_stream(self._device).record_event()

    def forbid_overlap(self) -> None:
        """Drop the event, so that the next overlapped work waits for the whole main stream."""
        self._overlap_from = None

    @contextmanager
    def overlapped(self) -> Iterator[None]:
        """Make the side stream current inside the block; the main stream waits for it at the end."""
        main = torch.cuda.current_stream(self._device)
        if self._overlap_from is None:
            self._side.wait_stream(main)
        else:
            self._side.wait_event(self._overlap_from)
        self._overlap_from = None
        try:
            with torch.cuda.stream(self._side):
                yield
        finally:
            main.wait_stream(self._side)
