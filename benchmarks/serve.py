"""What HTTP costs: streaming clients against the server in its own process, beside the engine in this one.

`python -m benchmarks.serve` gives both the same requests over the same random weights of a real shape. Server and
engine take turns within each repeat, one of them idle while the other works; the clients share the machine with the
server, as they do not in earnest. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import random
import secrets
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table
from transformers import PretrainedConfig

from benchmarks.clients import Streamed, rate, server_process, stream_all
from benchmarks.decoding import PROMPT, workload_seconds
from benchmarks.folders import save_random
from benchmarks.record import Bar, emit, show_bars, spread
from benchmarks.workloads import (
    KL_EVERY,
    SEED,
    Job,
    delta_fifteen_million,
    qwen2_half_billion,
    random_prompt,
    read_tokenizers,
    total_tokens,
)
from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.model.loading import load_model
from steering.specs import SteeringSpec

_BASE, _ADAPTER = "big", "d"


@dataclass(frozen=True, slots=True)
class Sizes:
    """How many clients stream at once, what each asks for, and with how many an idle adapter's cost is taken."""

    clients: tuple[int, ...] = (1, 8, 32)
    tokens: int = 64
    idle_clients: int = 8


@dataclass(frozen=True, slots=True)
class Turn:
    """One repeat of one side: tokens a second of the engine and of the server, and the latencies, in seconds."""

    engine: float
    server: float
    first_token: float
    between_p50: float
    between_p99: float

    @property
    def ratio(self) -> float:
        """The server's throughput over the engine's."""
        return self.server / self.engine


Turns = dict[tuple[int, bool], list[Turn]]


class Arena:
    """The server at `url` and the engine, with the same models."""

    def __init__(self, url: str, admin_key: str, engine: Engine, adapter: Path) -> None:
        self._url = url
        self._engine = engine
        self._adapter = adapter
        self._admin = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {admin_key}"}, timeout=120, trust_env=False
        )
        self._rng = random.Random(SEED)

    def jobs(self, clients: int, tokens: int) -> list[Job]:
        """Requests that neither side has seen."""
        vocabulary = self._engine.base.vocab_size
        return [Job(random_prompt(self._rng, PROMPT, vocabulary), tokens) for _ in range(clients)]

    def over_http(self, jobs: Sequence[Job], *, steered: bool) -> list[Streamed]:
        """The server's streams, one client a job. Raises RuntimeError when one is cut short."""
        model = f"{_BASE}:{_ADAPTER}" if steered else _BASE
        common = {"model": model, "temperature": 0, "ignore_eos": True}
        streams = stream_all(
            self._url, [{**common, "prompt": list(job.prompt), "max_tokens": job.tokens} for job in jobs]
        )
        if [stream.tokens for stream in streams] != [job.tokens for job in jobs]:
            raise RuntimeError("a stream had fewer tokens than were asked for")
        return streams

    def in_process(self, jobs: Sequence[Job], *, steered: bool) -> float:
        """The engine's tokens a second."""
        steering = (SteeringSpec(_ADAPTER),) if steered else ()
        return total_tokens(jobs) / workload_seconds(self._engine, jobs, steering)

    def unload(self) -> None:
        """Take the adapter out of the server."""
        self._admin.delete(f"/v1/adapters/{_ADAPTER}").raise_for_status()

    def load(self) -> None:
        """Put it back."""
        body = {"name": _ADAPTER, "path": str(self._adapter)}
        self._admin.post("/v1/adapters", json=body).raise_for_status()

    def close(self) -> None:
        """Let go of the connection."""
        self._admin.close()


def take_turn(arena: Arena, clients: int, tokens: int, *, steered: bool) -> Turn:
    """The same requests to the engine, then to the server."""
    jobs = arena.jobs(clients, tokens)
    engine = arena.in_process(jobs, steered=steered)
    streams = arena.over_http(jobs, steered=steered)
    gaps = sorted(gap for stream in streams for gap in stream.between)
    return Turn(
        engine=engine,
        server=rate(streams),
        first_token=statistics.median(stream.first_token for stream in streams),
        between_p50=gaps[len(gaps) // 2],
        between_p99=gaps[len(gaps) * 99 // 100],
    )


def idle_cost(arena: Arena, sizes: Sizes) -> float:
    """Unsteered throughput with an adapter loaded over that without."""
    rates = []
    arena.unload()
    for loads in (False, True):
        if loads:
            arena.load()
        jobs = arena.jobs(sizes.idle_clients, sizes.tokens)
        rates.append(rate(arena.over_http(jobs, steered=False)))
    without, loaded = rates
    return loaded / without


def measure(arena: Arena, sizes: Sizes, repeats: int) -> tuple[Turns, list[float]]:
    """All sides in turn, after a few tokens of each that are thrown away; then the idle adapter's cost."""
    turns: Turns = {(clients, steered): [] for clients in sizes.clients for steered in (False, True)}
    idle = []
    for clients, steered in turns:
        take_turn(arena, clients, 4, steered=steered)
    for _ in range(repeats):
        for (clients, steered), found in turns.items():
            found.append(take_turn(arena, clients, sizes.tokens, steered=steered))
        idle.append(idle_cost(arena, sizes))
    return turns, idle


def run(
    base: PretrainedConfig,
    delta: PretrainedConfig,
    tokenizer: Any,
    sizes: Sizes,
    *,
    repeats: int,
    device: str,
) -> tuple[Turns, list[float]]:
    """Save models of these shapes, serve them, and measure."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        for config in (base, delta):
            # A token without text, beyond the tokenizer, would make no event.
            config.vocab_size = len(tokenizer)
        models = save_random(base, tokenizer, scratch / "base")
        adapter = save_random(delta, tokenizer, scratch / "adapters" / _ADAPTER, seed=SEED + 1)
        most = max(sizes.clients)
        admin_key = secrets.token_urlsafe()
        flags = ["--model", f"{_BASE}={models}", "--adapter", f"{_ADAPTER}={adapter}"]
        flags += ["--adapters-dir", str(adapter.parent), "--admin-key", admin_key]
        flags += ["--max-num-seqs", str(most), "--device", device, "--log-level", "warning"]
        with server_process(flags, scratch / "server.log") as url:
            engine = Engine(
                load_model(models, device=device), EngineConfig(max_num_seqs=most, kl_every=KL_EVERY)
            )
            engine.session.attach(load_adapter(_ADAPTER, adapter, device=device))
            arena = Arena(url, admin_key, engine, adapter)
            try:
                return measure(arena, sizes, repeats)
            finally:
                arena.close()


def bars(turns: Turns, idle: Sequence[float], sizes: Sizes) -> list[Bar]:
    """The figures that are held against bars; the bar is for many clients."""
    found = []
    for (clients, steered), taken in turns.items():
        name = f"HTTP over the engine in process, {clients} clients, {'steered' if steered else 'unsteered'}"
        limit = 0.9 if clients == max(sizes.clients) else None
        found.append(Bar(name, tuple(turn.ratio for turn in taken), at_least=limit))
    name = f"throughput with an idle adapter over without, {sizes.idle_clients} clients"
    found.append(Bar(name, tuple(idle)))
    return found


def show(turns: Turns) -> None:
    """Print throughput and latency."""
    headings = ["clients", "", "engine, tokens/s", "server, tokens/s"]
    table = Table(*headings, "first token, ms", "between, p50, ms", "between, p99, ms")
    for (clients, steered), taken in turns.items():
        table.add_row(
            str(clients),
            "steered" if steered else "",
            spread([turn.engine for turn in taken], 1),
            spread([turn.server for turn in taken], 1),
            spread([1000 * turn.first_token for turn in taken], 0),
            spread([1000 * turn.between_p50 for turn in taken], 1),
            spread([1000 * turn.between_p99 for turn in taken], 1),
        )
    Console(width=150).print(table)


def report(
    base: PretrainedConfig,
    delta: PretrainedConfig,
    tokenizer: Any,
    sizes: Sizes,
    *,
    repeats: int,
    device: str,
) -> None:
    """Measure these shapes, print the tables, then the JSON line."""
    turns, idle = run(base, delta, tokenizer, sizes, repeats=repeats, device=device)
    held = bars(turns, idle, sizes)
    show(turns)
    show_bars(held)
    figures: list[dict[str, Any]] = [
        {"clients": clients, "steered": steered, "turns": [asdict(turn) for turn in taken]}
        for (clients, steered), taken in turns.items()
    ]
    emit("serve", held, figures, seed=SEED, repeats=repeats, device=device)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = read_tokenizers(Path(scratch)).small
    base, delta = qwen2_half_billion(len(tokenizer)), delta_fifteen_million()
    report(base, delta, tokenizer, Sizes(), repeats=options.repeats, device=options.device)


if __name__ == "__main__":
    main()
