"""Threads that each run one function and then end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

Result = TypeVar("Result")


def start_thread(function: Callable[[], Result], name: str, *, daemon: bool = False) -> Future[Result]:
    """Calls `function` in a new thread, which ends with it. The function runs to its end even if nobody waits for it; a
    `daemon` thread ends with the process.

    Functions that compute with torch beside the engine should run this way. OpenMP keeps a team of worker threads for
    every living thread that has computed. Once these are more than the cores, all of them sleep at each barrier instead
    of spinning for a moment, and a step of the engine takes up to half longer.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()

    threading.Thread(target=_run, args=(future, function), name=name, daemon=daemon).start()
    return future


def _run(future: Future[Result], function: Callable[[], Result]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - the future passes it on
        future.set_exception(error)
        # The error's traceback holds this frame. Without the references to it, the memory of a failed load is freed at
        # once, not by the garbage collector some time later.
        del future, function
