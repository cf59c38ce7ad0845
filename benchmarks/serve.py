"""The cost of HTTP: streaming clients against the server in its own process, beside the engine in this one.

`python -m benchmarks.serve` gives both the same requests over the same random weights of a real shape. Server and
engine take turns within each repeat, and each is idle while the other works. The clients share the machine with the
server, which real clients do not. Prints a table, then one JSON line.
"""

from __future__ import annotations

import copy
import random
import secrets
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
from rich.table import Table

from benchmarks.clients import Streamed, rate, server_process, stream_all
from benchmarks.decoding import PROMPT, workload_seconds
from benchmarks.report.bar import Bar, spread
from benchmarks.report.machine import torch_machine
from benchmarks.report.options import add_device, make_parser
from benchmarks.report.report import Report
from benchmarks.turns import take_turns
from benchmarks.workloads.engines import make_engine
from benchmarks.workloads.jobs import SEED, Job, random_prompt, total_tokens
from benchmarks.workloads.models import save_random
from benchmarks.workloads.shapes import Pair, delta_fifteen_million, qwen2_half_billion
from benchmarks.workloads.tokenizers import read_tokenizers
from steering.adapters import load_adapter
from steering.engine.engine import Engine
from steering.model.loading import load_model
from steering.specs import SteeringSpec

_BASE, _ADAPTER = "big", "d"
_WARM_UP_TOKENS = 4


@dataclass(frozen=True, slots=True)
class Sizes:
    """`clients`: numbers of clients that stream at once. `tokens`: tokens that each of them asks for.

    `idle_clients`: the number of clients with which the cost of an unused adapter is measured.
    """

    clients: tuple[int, ...] = (1, 8, 32)
    tokens: int = 64
    idle_clients: int = 8


@dataclass(frozen=True, slots=True)
class Turn:
    """One repeat of one side: tokens a second of the engine and of the server, and latencies in seconds."""

    engine: float
    server: float
    first_token: float
    between_p50: float
    between_p99: float

    @property
    def ratio(self) -> float:
        """The server's throughput over the engine's."""
        return self.server / self.engine


Turns = dict[tuple[int, bool], tuple[Turn, ...]]
"""The turns of each side, which is a number of clients and whether they are steered."""


class Arena:
    """A server and an engine with the same models."""

    def __init__(self, url: str, admin_key: str, engine: Engine, adapter: Path) -> None:
        self._url = url
        self._engine = engine
        self._adapter = adapter
        self._admin = httpx.Client(
            base_url=url, headers={"authorization": f"Bearer {admin_key}"}, timeout=120, trust_env=False
        )
        self._rng = random.Random(SEED)

    def jobs(self, clients: int, tokens: int) -> list[Job]:
        """Random requests, new ones at each call, so that no prefix cache has them."""
        vocabulary = self._engine.base.vocab_size
        return [Job(random_prompt(self._rng, PROMPT, vocabulary), tokens) for _ in range(clients)]

    def over_http(self, jobs: Sequence[Job], *, steered: bool) -> list[Streamed]:
        """Stream each job from the server with a client of its own. Raises RuntimeError for a short stream."""
        model = f"{_BASE}:{_ADAPTER}" if steered else _BASE
        common = {"model": model, "temperature": 0, "ignore_eos": True}
        streams = stream_all(
            self._url, [{**common, "prompt": list(job.prompt), "max_tokens": job.tokens} for job in jobs]
        )
        if [stream.tokens for stream in streams] != [job.tokens for job in jobs]:
            raise RuntimeError("a stream had fewer tokens than were asked for")
        return streams

    def in_process(self, jobs: Sequence[Job], *, steered: bool) -> float:
        """Serve the jobs by the engine. Returns tokens a second."""
        steering = (SteeringSpec(_ADAPTER),) if steered else ()
        return total_tokens(jobs) / workload_seconds(self._engine, jobs, steering)

    def unload(self) -> None:
        """Remove the adapter from the server."""
        self._admin.delete(f"/v1/adapters/{_ADAPTER}").raise_for_status()

    def load(self) -> None:
        """Load the adapter into the server again."""
        body = {"name": _ADAPTER, "path": str(self._adapter)}
        self._admin.post("/v1/adapters", json=body).raise_for_status()

    def close(self) -> None:
        """Close the connection."""
        self._admin.close()


def take_turn(arena: Arena, clients: int, tokens: int, *, steered: bool) -> Turn:
    """Give the same requests to the engine, then to the server."""
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
    """Unsteered throughput with an adapter loaded over the throughput without."""
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
    """All sides in turn, after a round of a few tokens that warms up, and the unused adapter's cost."""

    def timed(clients: int, steered: bool) -> Callable[[int], Turn]:
        def run(repeat: int) -> Turn:
            tokens = sizes.tokens if repeat >= 0 else _WARM_UP_TOKENS
            return take_turn(arena, clients, tokens, steered=steered)

        return run

    sides = [(clients, steered) for clients in sizes.clients for steered in (False, True)]
    turns = take_turns({side: timed(*side) for side in sides}, repeats)
    return turns, [idle_cost(arena, sizes) for _ in range(repeats)]


@contextmanager
def opened(pair: Pair, sizes: Sizes, device: str) -> Iterator[Arena]:
    """Save random models of these shapes, and give them to a server and to an engine."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        models = save_random(pair.base, pair.tokenizer, scratch / "base")
        adapter = save_random(pair.delta, pair.tokenizer, scratch / "adapters" / _ADAPTER, seed=SEED + 1)
        most = max(sizes.clients)
        admin_key = secrets.token_urlsafe()
        flags = ["--model", f"{_BASE}={models}", "--adapter", f"{_ADAPTER}={adapter}"]
        flags += ["--adapters-dir", str(adapter.parent), "--admin-key", admin_key]
        flags += ["--max-num-seqs", str(most), "--device", device, "--log-level", "warning"]
        with server_process(flags, scratch / "server.log") as url:
            engine = make_engine(load_model(models, device=device), most)
            engine.session.attach(load_adapter(_ADAPTER, adapter, device=device))
            with closing(Arena(url, admin_key, engine, adapter)) as arena:
                yield arena


def bars(turns: Turns, idle: Sequence[float], sizes: Sizes) -> list[Bar]:
    """HTTP over the engine in process, with a bar for the most clients, and the cost of an unused adapter."""
    found = []
    for (clients, steered), taken in turns.items():
        name = f"HTTP over the engine in process, {clients} clients, {'steered' if steered else 'unsteered'}"
        limit = 0.9 if clients == max(sizes.clients) else None
        found.append(Bar(name, tuple(turn.ratio for turn in taken), at_least=limit))
    name = f"throughput with an idle adapter over without, {sizes.idle_clients} clients"
    found.append(Bar(name, tuple(idle)))
    return found


def turn_table(turns: Turns) -> Table:
    """Throughput and latency."""
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
    return table


def run(pair: Pair, sizes: Sizes, *, repeats: int, device: str) -> Report:
    """Serve models of these shapes, and measure. Their vocabulary becomes the tokenizer's."""
    base, delta = copy.deepcopy(pair.base), copy.deepcopy(pair.delta)
    # A token beyond the tokenizer has no text, and so no event.
    base.vocab_size = delta.vocab_size = len(pair.tokenizer)
    with opened(Pair(base, delta, pair.tokenizer), sizes, device) as arena:
        turns, idle = measure(arena, sizes, repeats)
    figures: list[dict[str, Any]] = [
        {"clients": clients, "steered": steered, "turns": [asdict(turn) for turn in taken]}
        for (clients, steered), taken in turns.items()
    ]
    held = bars(turns, idle, sizes)
    return Report("serve", turn_table(turns), held, figures, repeats, torch_machine(device))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the server over HTTP against the engine in process. Prints a table, then one JSON line."""
    parser = make_parser("serve", main.__doc__)
    add_device(parser)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = read_tokenizers(Path(scratch)).small
    pair = Pair(qwen2_half_billion(len(tokenizer)), delta_fifteen_million(), tokenizer)
    run(pair, Sizes(), repeats=options.repeats, device=options.device).publish()


if __name__ == "__main__":
    main()
