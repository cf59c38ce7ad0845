"""Tries grammars in a process of their own, which is killed and replaced where one exceeds the limits.

The compiler is native code, which no thread can be made to leave, and a schema of forty bytes can take it hours and
gigabytes. A compiled grammar cannot be sent from one process to another either. So a grammar is compiled twice: first
where that may fail, then, if it has stayed within the limits, in the server.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import pickle
import selectors
import subprocess
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from mapping_cache import CanonicalVocabulary
from server.tools.grammar_process import TrialSetup, write_frame
from steering.engine.constraint import ConstraintError

logger = logging.getLogger(__name__)

_START_SECONDS = 60.0
_MODULE = "server.tools.grammar_process"


@dataclass(frozen=True, slots=True)
class TrialLimits:
    """The limits of one grammar.

    A schema of 60 kB with 600 properties takes 0.03 seconds and 6 MiB. `seconds` are of the clock, and leave room for a
    busy machine.
    """

    seconds: float = 2.0
    memory: int = 32 * 2**20


class TrialUnavailableError(Exception):
    """No process could be started, so that no grammar can be tried."""


class GrammarTrial:
    """The process and the way to it. One thread at a time; the process starts at the first use."""

    def __init__(
        self,
        vocabulary: CanonicalVocabulary,
        eos_token_ids: Collection[int],
        limits: TrialLimits | None = None,
    ) -> None:
        self._limits = limits or TrialLimits()
        self._setup = TrialSetup(vocabulary, tuple(eos_token_ids), self._limits.memory)
        self._process: subprocess.Popen[bytes] | None = None
        self._ready = False

    def try_out(self, grammar: str) -> None:
        """Raises ConstraintError for a grammar that cannot be compiled within the limits, TrialUnavailableError."""
        process = self._running()
        try:
            self._send(process, grammar.encode())
            line = self._read_line(process, self._limits.seconds)
        except OSError:
            line = b""
        if not line:
            status = self._replace()
            logger.warning("a grammar was stopped at its limits (the process ended with status %s)", status)
            raise ConstraintError(
                f"it takes more than {self._limits.seconds:g} seconds or "
                f"{self._limits.memory // 2**20} MiB to compile"
            )
        answer: dict[str, Any] = json.loads(line)
        if answer["full"]:
            self._replace()
        if answer["reason"] is not None:
            raise ConstraintError(answer["reason"])

    def close(self) -> None:
        """Ends the process."""
        process, self._process, self._ready = self._process, None, False
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    # What was left to send is lost with the process.
                    with contextlib.suppress(OSError):
                        pipe.close()

    def _running(self) -> subprocess.Popen[bytes]:
        """A process that is ready. Raises TrialUnavailableError."""
        if self._process is not None and self._process.poll() is not None:
            # Somebody else has ended it.
            self.close()
        try:
            process = self._process or self._start()
            if not self._ready and self._read_line(process, _START_SECONDS) != b"ready\n":
                raise OSError("it did not become ready")
        except OSError as error:
            self.close()
            logger.exception("the process that tries grammars could not be started")
            raise TrialUnavailableError(str(error)) from error
        self._ready = True
        return process

    def _start(self) -> subprocess.Popen[bytes]:
        # Its own session, so that a Ctrl+C for the server does not end it; none of the server's keys and settings.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRIMTAB_")}
        paths = [path or str(Path.cwd()) for path in sys.path]
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTHONPATH": os.pathsep.join(paths)},
            start_new_session=True,
        )
        self._process, self._ready = process, False
        self._send(process, pickle.dumps(self._setup))
        return process

    def _replace(self) -> int | None:
        """Ends the process and starts the next one, which becomes ready while nobody waits; returns its exit status."""
        status = None if self._process is None else self._process.poll()
        self.close()
        with contextlib.suppress(OSError):
            self._start()
        return status

    def _send(self, process: subprocess.Popen[bytes], content: bytes) -> None:
        if process.stdin is None:
            raise OSError("the process has no input")
        write_frame(cast(BinaryIO, process.stdin), content)

    def _read_line(self, process: subprocess.Popen[bytes], seconds: float) -> bytes:
        """The next line; "" where the process ends, or does not write one in time."""
        if process.stdout is None:
            raise OSError("the process has no output")
        line = b""
        deadline = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not line.endswith(b"\n"):
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return b""
                part = os.read(process.stdout.fileno(), 65536)
                if not part:
                    return b""
                line += part
        return line
