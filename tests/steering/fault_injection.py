"""Exceptions raised at random in the calls that a step makes for a row: `python -m tests.steering.fault_injection`.

Only rows of the run that raised may end, every other row's tokens are what it gets alone, and no page leaks. A fault
that is raised once in a batch may end no row at all: the rows are then computed one by one, and none raises again.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from steering.bridges import rescore
from steering.bridges.table import BRIDGES
from steering.crossing.encoder import SteeringEncoder
from steering.crossing.history import SharedHistory, TextHistory
from steering.device.execution import Execution
from steering.engine import drawing, drawn
from steering.engine.constraint import ConstraintCompiler, ConstraintState
from steering.engine.drawn import Drawn, OutputBuilder
from steering.engine.ending import EndRules
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request
from steering.session import groups, steering_pass
from steering.specs import SteeringSpec
from steering.steerers import trials
from steering.steerers.history_kv import HistoryKV
from steering.steerers.state import SteererState
from steering.steerers.window import HistoryWindow
from tests.steering.support import Result, Tiny, Workshop, drain, request, tokenizer_of
from tests.steering.tape import TapeCapture

TARGETS: tuple[tuple[Any, str], ...] = (
    *((TextHistory, name) for name in ("push", "continuation", "copy")),
    *((SharedHistory, name) for name in ("push", "continuation")),
    *((SteeringEncoder, name) for name in ("encode", "last_boundary")),
    *((HistoryWindow, name) for name in ("push", "slide", "tokens", "copy", "position_of")),
    *(
        (HistoryKV, name)
        for name in ("truncate", "next_input", "cache_settled", "lend", "fork", "copy_pages")
    ),
    *((SteererState, name) for name in ("advance", "takes_many", "views")),
    *((ConstraintState, name) for name in ("follow", "allowed")),
    *((EndRules, name) for name in ("end_tokens", "forbidden", "reason")),
    *((drawing, name) for name in ("sample", "constrain", "token_logprobs", "drawn_of")),
    *((drawn, name) for name in ("best", "divergence", "logprob_table", "from_table")),
    *((groups, name) for name in ("bridge_for", "read")),
    *((rescore, name) for name in ("_propose", "_candidate", "_beyond_first", "score_trials")),
    *((trials, name) for name in ("_sharing", "_try_out")),
    (steering_pass, "add_shift"),
    (Drawn, "read"),
    (OutputBuilder, "output"),
)
"""Every function that runs for a row in a step, by the place where it is looked up."""

BASE, SAME, OTHER = Tiny("qwen2", "sp", seed=1), Tiny("llama", "sp", seed=5), Tiny("llama", "bl", seed=6)
GRAMMAR = "start: /[a-z ]{3,9}/"


class InjectedError(Exception):
    """Raised by an injection."""


class Injector:
    """Raises in a share of the calls of all targets, while it is on."""

    def __init__(self, seed: int, share: float) -> None:
        self.on = False
        self.raised: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._share = share

    @contextmanager
    def installed(self) -> Iterator[None]:
        with ExitStack() as stack:
            for owner, name in TARGETS:
                wrapped = self._wrap(getattr(owner, name), f"{owner.__name__}.{name}")
                stack.enter_context(mock.patch.object(owner, name, wrapped))
            for name, bridge in list(BRIDGES.items()):
                stack.enter_context(mock.patch.dict(BRIDGES, {name: self._wrap(bridge, name)}))
            yield

    def _wrap(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        @wraps(function)
        def wrapper(*args: Any, **options: Any) -> Any:
            if self.on and self._random.random() < self._share:
                self.raised[name] += 1
                raise InjectedError(name)
            return function(*args, **options)

        return wrapper


@dataclass(frozen=True)
class Scenario:
    """An engine's limits, which bring about one kind of step or another."""

    name: str
    limits: dict[str, Any]
    ahead: bool = False


SCENARIOS = (
    Scenario("prefill in chunks", {"max_step_tokens": 7}),
    Scenario("many at once", {}),
    Scenario("preemption", {"kv_cache_memory": 40_000, "max_model_len": 48}),
    Scenario("running ahead", {}, ahead=True),
)


class Campaign:
    """Runs the same requests under injections, and compares them with what each gets alone."""

    def __init__(self, root: Path) -> None:
        self._workshop = Workshop(root)
        shop = self._workshop
        self._adapters = [
            shop.adapter("same", SAME)[0],
            shop.adapter("other", OTHER)[0],
            shop.adapter("pair", OTHER, Tiny("llama", "bl", seed=7))[0],
        ]
        base = shop.loaded(BASE)
        compiler = ConstraintCompiler(base.vocabulary, base.eos_token_ids)
        self._requests = list(_requests(compiler.compile(GRAMMAR)))
        engine = self._engine(SCENARIOS[1])
        self._alone: dict[str, Result] = {}
        for one in self._requests:
            engine.add_request(one)
            self._alone |= drain(engine, {})

    def run(self, scenario: Scenario, seed: int, share: float) -> Injector:
        """One run of all requests; raises AssertionError where a law is broken."""
        injector = Injector(seed, share)
        with injector.installed():
            engine = self._engine(scenario)
            order = random.Random(seed).sample(self._requests, len(self._requests))
            results: dict[str, Result] = {}
            for one in order:
                engine.add_request(one)
            injector.on = True
            drain(engine, results)
            injector.on = False
            ended = [name for name, result in results.items() if result.finish == "error"]
            assert len(ended) <= sum(injector.raised.values())
            for one in self._requests:
                got, alone = results[one.request_id], self._alone[one.request_id]
                # What a row has before its end is right as well.
                whole = got.finish != "error"
                assert got.tokens == (alone.tokens if whole else alone.tokens[: len(got.tokens)]), one
                assert not whole or got.finish == alone.finish
                if whole and alone.prompt is not None:
                    assert got.prompt is not None
                    _assert_close(got, alone)
            engine.check_integrity()
            assert engine.stats().kv_pages_used == 0
            assert all(rows == 0 for _, rows in engine.session.adapter_rows())
        return injector

    def _engine(self, scenario: Scenario) -> Engine:
        execution = Execution(TapeCapture(), TapeCapture(), runs_ahead=True) if scenario.ahead else None
        limits = EngineConfig(**({"page_size": 4, "max_num_seqs": 16} | scenario.limits))
        engine = Engine(self._workshop.loaded(BASE), limits, execution)
        for adapter in self._adapters:
            engine.session.attach(adapter)
        return engine


def _requests(constraint: Any) -> Iterator[Request]:
    encode = tokenizer_of("sp").encode
    texts = ("The captain told nobody", "naïve 東京 🙂 ok", "a", "The captain told nobody that it was late")
    specs: Sequence[tuple[SteeringSpec, ...]] = (
        (),
        (SteeringSpec("same"),),
        (SteeringSpec("other"),),
        (SteeringSpec("other", bridge="map", top_k=9),),
        (SteeringSpec("pair"), SteeringSpec("same", alpha=0.5)),
    )
    for number, steering in enumerate(specs):
        prompt = encode(texts[number % len(texts)])
        yield request(f"greedy-{number}", prompt, *steering, count=6)
        yield request(
            *(f"drawn-{number}", prompt, *steering),
            count=5,
            temperature=1.0,
            top_p=0.9,
            seed=number,
            presence_penalty=0.5,
            logprobs=None,
        )
        yield request(f"scored-{number}", prompt, *steering, max_tokens=1, prompt_logprobs=1)
    free = request("grammar", encode("Once"), SteeringSpec("other"), count=8, ignore_eos=False)
    yield Request(free.request_id, free.prompt_ids, free.sampling, free.steering, constraint)


def _assert_close(got: Result, alone: Result) -> None:
    for one, other in zip(got.prompt or (), alone.prompt or (), strict=True):
        if one is not None and other is not None:
            torch.testing.assert_close(one.logprob, other.logprob, atol=1e-4, rtol=0.0)


def main() -> None:
    """Run until so many faults have been raised, and print where."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--placements", type=int, default=10_000)
    parser.add_argument("--share", type=float, default=0.004)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    import logging

    logging.disable(logging.ERROR)
    raised: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as root:
        campaign = Campaign(Path(root))
        seed = arguments.seed
        while sum(raised.values()) < arguments.placements:
            raised += campaign.run(SCENARIOS[seed % len(SCENARIOS)], seed, arguments.share).raised
            seed += 1
    for name, count in sorted(raised.items()):
        print(f"{count:6} {name}")
    print(f"{sum(raised.values())} faults in {seed - arguments.seed} runs: only their own rows ended")


if __name__ == "__main__":
    main()
