"""The second stream of a GPU: which stream waits for which."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from steering.device.side_stream import CudaSideStream


class Stream:
    """A stand-in for a CUDA stream that logs its events and waits."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name, self.log = name, log

    def wait_stream(self, other: Stream) -> None:
        self.log.append(f"{self.name} waits for all of {other.name}")

    def wait_event(self, event: str) -> None:
        self.log.append(f"{self.name} waits for {event}")

    def record_event(self) -> str:
        self.log.append(f"{self.name} records an event")
        return "the event"


def test_only_the_first_work_of_a_step_runs_beside_the_base(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    main, side = Stream("main", log), Stream("side", log)

    @contextmanager
    def current(stream: Stream) -> Iterator[None]:
        log.append(f"on {stream.name}")
        yield
        log.append(f"off {stream.name}")

    cuda = SimpleNamespace(Stream=lambda device: side, current_stream=lambda device: main, stream=current)
    monkeypatch.setattr(torch, "cuda", cuda)
    stream = CudaSideStream(torch.device("cuda"))
    stream.allow_overlap()
    for _ in range(2):
        with stream.overlapped():
            pass
    stream.allow_overlap()
    stream.forbid_overlap()
    with stream.overlapped():
        pass
    within = ["on side", "off side", "main waits for all of side"]
    assert log == [
        *("main records an event", "side waits for the event", *within),
        *("side waits for all of main", *within),
        *("main records an event", "side waits for all of main", *within),
    ]
