"""Threads that each run one function, and the loading of engines in such a thread."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path

import pytest

from server.config import load_config
from server.engines.loading import load_engines
from server.engines.threads import start_thread
from steering.errors import ModelLoadError
from steering.model.loading import load_model
from tests.server_thread import wait_for


def test_the_result_or_error_of_the_function_reaches_the_future() -> None:
    assert start_thread(lambda: threading.current_thread().name, "own").result() == "own"

    def fails() -> None:
        raise KeyError("missing")

    with pytest.raises(KeyError, match="missing"):
        start_thread(fails, "own").result()


def test_the_memory_of_a_failed_load_is_freed_with_its_error() -> None:
    """The memory is freed without the garbage collector, because the next attempt needs it."""

    class Weights:
        pass

    held: list[weakref.ref[Weights]] = []

    def fails() -> None:
        weights = Weights()
        held.append(weakref.ref(weights))
        raise MemoryError

    gc.disable()
    try:
        with pytest.raises(MemoryError) as caught:
            start_thread(fails, "own").result()
        del caught
        wait_for(lambda: held[0]() is None)
    finally:
        gc.enable()


async def test_the_function_runs_to_its_end_after_its_waiter_has_left() -> None:
    go, done = threading.Event(), threading.Event()

    def work() -> None:
        go.wait()
        done.set()

    future = start_thread(work, "own")
    waiting = asyncio.create_task(asyncio.wait_for(asyncio.wrap_future(future), 0.01))
    with pytest.raises(TimeoutError):
        await waiting
    go.set()
    await asyncio.to_thread(done.wait, 10)
    assert done.is_set()
    assert not future.cancelled()


def test_engines_are_loaded_in_a_thread_that_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise OpenMP would keep the worker threads of the loading beside the engine's own."""
    seen: list[threading.Thread] = []

    def loaded(*given: object, **named: object) -> object:
        seen.append(threading.current_thread())
        return load_model(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr("server.engines.loading.load_model", loaded)
    engines = load_engines(load_config(device="cpu"))
    assert engines
    assert len(seen) == len(engines)
    for thread in seen:
        assert thread is not threading.main_thread()
        thread.join(10)
        assert not thread.is_alive()


def test_why_a_model_cannot_be_loaded_is_said_as_before(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="configuration"):
        load_engines(load_config(model={"a": str(tmp_path)}, device="cpu"))


# The interrupt is restored, because a shell has what it runs in the background ignore it.
_INTERRUPTED = """
import signal
import time
signal.signal(signal.SIGINT, signal.default_int_handler)
import server.engines.loading as loading
def load(config, tell):
    print("loading", flush=True)
    time.sleep(600)
loading._load = load
from server.cli.app import app
app(["serve"])
"""


def test_an_interrupt_ends_a_server_that_is_loading() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any("loading" in line for line in process.stdout)
            process.send_signal(signal.SIGINT)
            said, _ = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 130
    assert "interrupted" in said
    assert "Traceback" not in said
