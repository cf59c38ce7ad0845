"""An engine without a model: it generates given tokens over a byte vocabulary, one burst in each step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from mapping_cache import CanonicalVocabulary, MatchKind, VocabularyMap
from steering.engine.outputs import EngineStats, FinishReason, StepOutput
from steering.engine.request import Request
from steering.engine.step_report import PHASES, StepReport
from steering.errors import InvalidRequestError
from steering.session.logprobs import TokenLogprob
from steering.specs import ResolvedSteering

EOS = 256
VOCABULARY = CanonicalVocabulary(
    tokens=(*(bytes((byte,)) for byte in range(256)), None),
    specials={EOS: "</s>"},
    roles={"bos": frozenset(), "eos": frozenset({EOS}), "pad": frozenset(), "unk": frozenset()},
    surfaces=(*(f"<0x{byte:02X}>" for byte in range(256)), "</s>"),
    main={"eos": EOS},
    byte_tokens=frozenset(),
    dummy_prefix="none",
    fingerprint="bytes",
)


class ByteTokenizer:
    """Text as UTF-8 bytes, and a chat template that a test can read."""

    chat_template = "yes"
    bos_token = None
    eos_token = "</s>"

    def encode(
        self, text: str, *, add_special_tokens: bool = True, verbose: bool = True, **options: bool
    ) -> list[int]:
        return list(text.encode())

    def apply_chat_template(
        self, messages: list[Mapping[str, str]], *, tokenize: bool, add_generation_prompt: bool
    ) -> str:
        lines = [f"{message['role']}: {message['content']}" for message in messages]
        return "\n".join([*lines, "assistant:"] if add_generation_prompt else lines)


@dataclass(frozen=True)
class FakeAdapter:
    name: str
    version: str = "v1"
    kind: str = "delta"
    alpha: float = 1.0
    bridge: str = "map"
    models: tuple[Any, ...] = (SimpleNamespace(vocabulary=VOCABULARY, tokenizer=ByteTokenizer()),)


@dataclass
class Running:
    request: Request
    left: list[int]
    told: int = 0


class FakeSession:
    """The adapters of a fake engine: `forget`, and those that a test installs."""

    def __init__(self, engine: FakeEngine) -> None:
        self._engine = engine
        self.attached: dict[str, Any] = {"forget": FakeAdapter("forget")}

    def prepare(self, adapter: Any) -> Any:
        if self._engine.unprepared is not None:
            raise self._engine.unprepared
        return adapter

    def install(self, steerer: Any) -> None:
        self.attached[steerer.name] = steerer

    def detach(self, name: str, *, when_unused: Callable[[], None] | None = None) -> None:
        del self.attached[name]
        if when_unused is not None:
            when_unused()

    def adapter_rows(self) -> list[tuple[Any, int]]:
        return [(adapter, 0) for adapter in self.attached.values()]

    def adapters(self) -> dict[str, Any]:
        return dict(self.attached)

    def vocabulary_map(self, name: str) -> VocabularyMap:
        ids = np.arange(257, dtype=np.int32)
        return VocabularyMap(
            ids=ids,
            nearest=ids.copy(),
            kind=np.full(257, MatchKind.EXACT, np.uint8),
            similarity=np.ones(257, np.float32),
            steering_size=257,
            fingerprint="identity",
        )


@dataclass
class FakeEngine:
    """Generates the bytes that `say` returns for a request, then an EOS.

    `endless` generates "x" for ever instead. Steps wait while `go` is clear, and raise if `broken`; a restart raises if
    `is_beyond_use`; `prepare` raises `unprepared` if it is given.
    """

    say: Callable[[Request], bytes] = lambda request: b"hello world"
    burst: int = 1
    max_model_len: int = 64
    seen: list[Request] = field(default_factory=list)
    aborted: list[str] = field(default_factory=list)
    broken: bool = False
    is_beyond_use: bool = False
    endless: bool = False
    go: threading.Event = field(default_factory=threading.Event)
    stepping: bool = False
    unprepared: Exception | None = None

    def __post_init__(self) -> None:
        self.base = SimpleNamespace(
            tokenizer=ByteTokenizer(), vocabulary=VOCABULARY, vocab_size=257, eos_token_ids=frozenset({EOS})
        )
        self.running: dict[str, Running] = {}
        self.last_step = StepReport()
        self.session = FakeSession(self)
        self.go.set()

    @property
    def attached(self) -> dict[str, Any]:
        return self.session.attached

    def restart(self) -> list[str]:
        if self.is_beyond_use:
            raise RuntimeError("nothing is left of the device")
        dropped = list(self.running)
        self.running = {}
        return dropped

    def add_request(self, request: Request) -> tuple[ResolvedSteering, ...]:
        if request.prompt_ids == tuple(b"refuse me"):
            raise InvalidRequestError("the engine does not like it", "prompt")
        self.seen.append(request)
        tokens = [*self.say(request)]
        if not request.sampling.ignore_eos:
            tokens.append(EOS)
        self.running[request.request_id] = Running(request, tokens)
        return tuple(
            ResolvedSteering(
                spec.adapter,
                self.attached[spec.adapter].version,
                1.0 if spec.alpha is None else spec.alpha,
                "map",
            )
            for spec in request.steering
        )

    def abort(self, request_id: str) -> bool:
        self.aborted.append(request_id)
        return self.running.pop(request_id, None) is not None

    @property
    def has_work(self) -> bool:
        return bool(self.running)

    def step(self) -> list[StepOutput]:
        self.stepping = True
        self.go.wait(10)
        if self.endless:
            time.sleep(0.001)
        if self.broken:
            raise RuntimeError("the device is on fire")
        started = tuple(name for name, running in self.running.items() if not running.told)
        self.last_step = StepReport(dict.fromkeys(PHASES, 0.25), started)
        return [self._advance(running) for running in list(self.running.values())]

    def _advance(self, running: Running) -> StepOutput:
        request, sampling = running.request, running.request.sampling
        room = sampling.max_tokens - running.told
        if self.endless:
            running.left = [ord("x")] * self.burst
        tokens = tuple(running.left[: min(self.burst, room)])
        running.left = running.left[len(tokens) :]
        prompt = None
        if running.told == 0 and sampling.prompt_logprobs is not None:
            prompt = (None, *(self._logprob(token) for token in request.prompt_ids[1:]))
        running.told += len(tokens)
        reason: FinishReason | None = None
        if EOS in tokens:
            reason = "stop"
        elif running.told >= sampling.max_tokens or not (running.left or self.endless):
            reason = "length"
        if reason is not None:
            del self.running[request.request_id]
        logprobs = tuple(self._logprob(token) for token in tokens) if sampling.logprobs is not None else ()
        return StepOutput(
            request.request_id, tokens, logprobs, prompt, reason, changed=len(tokens), kl=0.1, cached_tokens=1
        )

    def _logprob(self, token: int) -> TokenLogprob:
        return TokenLogprob(token, -0.5, 1, -1.0, 0.5, ((token, -0.5), (0, -2.0)))

    def stats(self) -> EngineStats:
        return EngineStats(len(self.running), 0, len(self.running), 10, 0, 0, 0, 0)
