"""Threads that end with their work."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def start_thread(function: Callable[[], Result], name: str, *, daemon: bool = False) -> Future[Result]:
    """Call a function in a new thread. It runs to its end, whoever still waits; a `daemon` ends with the process.

    What computes with torch beside the engine should run so. OpenMP keeps worker threads for every thread that has
    computed, as long as that one lives. Where they are more than the cores, all of them sleep at each barrier, where
    they would otherwise wait awake for a moment, and a step of the engine takes up to half longer.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    threading.Thread(target=_run, args=(future, function), name=name, daemon=daemon).start()
    return future


def _run(future: Future[Result], function: Callable[[], Result]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - whoever waits gets it
        future.set_exception(error)
        # The error holds this frame: what had been loaded when it was raised must not wait for the collector.
        del future, function
