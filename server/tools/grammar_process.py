"""The process in which grammars are tried under limits: `python -m server.tools.grammar_process`.

It reads frames (a length of four bytes, then the content) from its standard input: first a pickled `TrialSetup`, then
one grammar after the other. For each grammar it writes a line, an object of JSON. Its `reason` says why the grammar
cannot be compiled, or is null. `full` is true where past grammars have taken so much memory that the process must be
replaced. A grammar that exceeds the memory limit ends the process.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import resource
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mapping_cache import CanonicalVocabulary
from steering.engine.constraint import ConstraintCompiler, ConstraintError

_KEPT_GRAMMARS = 4
"""The memory of past grammars, in multiples of one grammar's limit, at which the process is replaced."""


@dataclass(frozen=True, slots=True)
class TrialSetup:
    """The vocabulary for which grammars are compiled, and the bytes that one grammar may take."""

    vocabulary: CanonicalVocabulary
    eos_token_ids: tuple[int, ...]
    memory: int


def write_frame(stream: BinaryIO, content: bytes) -> None:
    """Writes one frame."""
    stream.write(len(content).to_bytes(4, "big") + content)
    stream.flush()


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame; None at the end of the stream."""
    head = stream.read(4)
    return stream.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def main() -> None:
    """Compiles grammars until the input ends."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    frame = read_frame(sys.stdin.buffer)
    if frame is None:
        return
    # From the server, which started this process; nothing of a client's is ever unpickled.
    setup: TrialSetup = pickle.loads(frame)
    compiler = ConstraintCompiler(setup.vocabulary, setup.eos_token_ids)
    # Makes the tokenizer, whose memory and time are not a grammar's.
    compiler.compile('start: "a"')
    _say("ready")
    first = _data_bytes()
    while (frame := read_frame(sys.stdin.buffer)) is not None:
        _limit_memory(setup.memory)
        reason: str | None = None
        try:
            compiler.compile(frame.decode())
        except ConstraintError as error:
            reason = str(error)
        full = _data_bytes() - first > _KEPT_GRAMMARS * setup.memory
        _say(json.dumps({"reason": reason, "full": full}))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _limit_memory(more: int) -> None:
    """Lets the process allocate this many bytes more, where the system can tell what it has."""
    if (used := _data_bytes()) > 0:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        with contextlib.suppress(ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (used + more, hard))


def _data_bytes() -> int:
    """The writable memory of the process in bytes; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except (OSError, IndexError):
        return 0


if __name__ == "__main__":
    main()
