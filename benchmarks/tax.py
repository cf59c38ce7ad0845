"""What steering costs: decode throughput on the bundled demo, steered against unsteered.

`python -m benchmarks.tax` runs greedy decoding of one length on each bundled base, with no adapter and with one, over
the base's own vocabulary and across two. The sides take turns within each repeat, so that whatever else the machine
does falls on all of them alike, and the figures are ratios within one run. Prints a table, then one JSON line.

The bundled models are tiny: a steering model has about a quarter of its base's parameters here, so the ratios say
nothing of a base that is a thousand times larger than what steers it.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

from demo import demo_adapters, demo_models
from steering.adapters import load_adapter
from steering.engine import Engine
from steering.models import load_model
from steering.types import BridgeName, Request, SamplingParams, SteeringSpec

SEED = 0


@dataclass(frozen=True, slots=True)
class Side:
    """One thing that is timed: a base with an adapter and bridge, or with none."""

    base: str
    adapter: str | None
    bridge: BridgeName | None
    vocabulary: str

    @property
    def label(self) -> str:
        """The side in words."""
        return self.base if self.adapter is None else f"{self.base}:{self.adapter}"


@dataclass(frozen=True, slots=True)
class Timing:
    """A side's decode throughput, tokens a second, one figure a repeat."""

    side: Side
    batch: int
    tokens_per_second: tuple[float, ...]


def load_engines(adapter: str, device: str) -> dict[str, Engine]:
    """An engine for each bundled base, with the adapter attached. Raises SystemExit where there is no demo."""
    models, adapters = demo_models(), demo_adapters()
    if not models or adapter not in adapters:
        raise SystemExit(f"the bundled demo has no models or no adapter {adapter!r}")
    loaded = load_adapter(adapter, adapters[adapter], device=device)
    engines = {name: Engine(load_model(path, device=device)) for name, path in models.items()}
    for engine in engines.values():
        engine.attach(loaded)
    return engines


def sides(engines: dict[str, Engine], adapter: str) -> list[Side]:
    """Each base alone, then steered by every bridge that differs there."""
    found = []
    for base, engine in engines.items():
        found.append(Side(base, None, None, ""))
        if engine.vocabulary_map(adapter).is_identity:
            found.append(Side(base, adapter, "map", "shared"))
        else:
            found.extend(Side(base, adapter, bridge, "crossed") for bridge in ("map", "rescore"))
    return found


def decode_rate(engine: Engine, side: Side, batch: int, tokens: int) -> float:
    """Tokens a second from the first step that only decodes to the last. Raises RuntimeError when a request fails."""
    tokenizer: Any = engine.base.tokenizer
    steering = () if side.adapter is None else (SteeringSpec(side.adapter, bridge=side.bridge),)
    sampling = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
    for index in range(batch):
        prompt = tuple(tokenizer.encode(f"Question {index}: where was she born?"))
        engine.add_request(Request(str(index), prompt, sampling, steering))
    _step(engine)  # the prompts: prefill is not what is measured
    began = time.perf_counter()
    count = 0
    while engine.has_work:
        count += _step(engine)
    if engine.base.device.type == "cuda":
        torch.cuda.synchronize(engine.base.device)
    return count / (time.perf_counter() - began)


def _step(engine: Engine) -> int:
    outputs = engine.step()
    for output in outputs:
        if output.error is not None:
            raise RuntimeError(output.error)
    return sum(len(output.token_ids) for output in outputs)


def measure(
    engines: dict[str, Engine], every: Sequence[Side], batches: Sequence[int], repeats: int, tokens: int
) -> list[Timing]:
    """All sides at all batch sizes, taking turns; one round before the first is thrown away."""
    rates: dict[tuple[int, int], list[float]] = {}
    for repeat in range(-1, repeats):
        for batch in batches:
            for number, side in enumerate(every):
                rate = decode_rate(engines[side.base], side, batch, tokens)
                if repeat >= 0:
                    rates.setdefault((number, batch), []).append(rate)
    return [Timing(every[number], batch, tuple(found)) for (number, batch), found in rates.items()]


def slowdowns(timing: Timing, timings: Sequence[Timing]) -> list[float]:
    """Time a token steered over time a token of the same base alone, repeat by repeat."""
    alone = next(
        t for t in timings if (t.side.base, t.side.adapter, t.batch) == (timing.side.base, None, timing.batch)
    )
    return [a / b for a, b in zip(alone.tokens_per_second, timing.tokens_per_second, strict=True)]


def show(timings: Sequence[Timing]) -> None:
    """Print the table."""
    table = Table("side", "vocabulary", "bridge", "batch", "tokens/s (median)", "slowdown (median, range)")
    for timing in timings:
        ratios = slowdowns(timing, timings)
        spread = f"{statistics.median(ratios):.2f}  ({min(ratios):.2f} to {max(ratios):.2f})"
        table.add_row(
            timing.side.label,
            timing.side.vocabulary,
            # Over one vocabulary both bridges are the same gather.
            timing.side.bridge if timing.side.vocabulary == "crossed" else "",
            str(timing.batch),
            f"{statistics.median(timing.tokens_per_second):.0f}",
            spread if timing.side.adapter else "1",
        )
    Console(width=110).print(table)


def report(timings: Sequence[Timing], repeats: int, tokens: int, device: str) -> dict[str, Any]:
    """All figures with what they were taken on."""
    return {
        "benchmark": "tax",
        "commit": _commit(),
        "hardware": {
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "device": device,
        },
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "seed": SEED,
        "repeats": repeats,
        "tokens": tokens,
        "figures": [
            {
                "base": t.side.base,
                "adapter": t.side.adapter,
                "bridge": t.side.bridge,
                "vocabulary": t.side.vocabulary or None,
                "batch": t.batch,
                "slowdown": [round(ratio, 3) for ratio in slowdowns(t, timings)],
            }
            for t in timings
        ],
    }


def _commit() -> str | None:
    """The commit that was measured, marked where the tree differs from it; None outside a checkout."""
    here = Path(__file__).resolve().parent
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=here,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or None


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, then the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tax", description=main.__doc__)
    parser.add_argument("--adapter", default="forget")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    engines = load_engines(options.adapter, options.device)
    timings = measure(
        engines, sides(engines, options.adapter), options.batch, options.repeats, options.tokens
    )
    show(timings)
    sys.stdout.write(json.dumps(report(timings, options.repeats, options.tokens, options.device)) + "\n")


if __name__ == "__main__":
    main()
