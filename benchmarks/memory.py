"""What a process holds beyond its models' weights and the keys and values that it computed.

`python -m benchmarks.memory BASE ADAPTER` serves one batch in this process, attaches more adapters that nobody uses,
and prints one JSON line. It is run anew for each measurement: what a process has once taken it keeps.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, PretrainedConfig

from benchmarks.decoding import PROMPT
from benchmarks.folders import weight_bytes
from benchmarks.workloads import SEED, random_prompt
from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.model.loading import load_model
from steering.specs import SteeringSpec

_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes. `resident`: the whole process after the batch; `weights`: both models' parameters; `pages`: both
    pools as the batch fills them; `idle`: resident memory gained by one adapter that nobody uses, with its weights
    (`idle_weights`)."""

    resident: int
    weights: int
    pages: int
    idle: float
    idle_weights: int

    @property
    def beyond(self) -> int:
        """What is neither weights nor keys and values."""
        return self.resident - self.weights - self.pages

    @property
    def idle_beyond(self) -> float:
        """What an adapter that nobody uses holds beside its weights."""
        return self.idle - self.idle_weights


def measure_apart(base: Path, adapter: Path, *, sequences: int, idle: int) -> Memory:
    """`measure` in a fresh process. Raises RuntimeError with what it said when it fails."""
    command = [sys.executable, "-m", "benchmarks.memory", str(base), str(adapter)]
    command += ["--sequences", str(sequences), "--idle", str(idle)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        raise RuntimeError(f"the process that measures memory failed:\n{done.stderr}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def measure(base: Path, adapter: Path, *, sequences: int, idle: int) -> Memory:
    """Serve `sequences` steered requests together, then attach `idle` adapters read from the same folder."""
    # The pool is just what the batch fills: of a larger one nobody could say how much of it is resident.
    config = EngineConfig(max_num_seqs=sequences, max_model_len=PROMPT + _TOKENS)
    engine = Engine(load_model(base, device="cpu"), config)
    engine.session.attach(load_adapter("used", adapter, device="cpu"))
    _serve(engine, sequences)
    shape, tiny = AutoConfig.from_pretrained(base), AutoConfig.from_pretrained(adapter)
    resident = _resident()
    # A load gives back what the batch left free, which is no gain of the adapters'.
    engine.session.attach(load_adapter("first idle", adapter, device="cpu"))
    before = _resident()
    for number in range(idle):
        engine.session.attach(load_adapter(f"idle-{number}", adapter, device="cpu"))
    gained = (_resident() - before) / idle if idle else 0.0
    tokens = engine.stats().kv_pages_total * config.page_size
    return Memory(
        resident=resident,
        weights=weight_bytes(shape) + weight_bytes(tiny),
        pages=tokens * (_token_bytes(shape) + _token_bytes(tiny)),
        idle=gained,
        idle_weights=weight_bytes(tiny),
    )


def _serve(engine: Engine, sequences: int) -> None:
    rng = random.Random(SEED)
    for number in range(sequences):
        sampling = SamplingParams(max_tokens=_TOKENS, temperature=0.0, ignore_eos=True)
        prompt = random_prompt(rng, PROMPT, engine.base.vocab_size)
        engine.add_request(Request(f"request-{number}", prompt, sampling, (SteeringSpec("used"),)))
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise RuntimeError(output.error)


def _token_bytes(config: PretrainedConfig) -> int:
    """Keys and values of one token at two bytes a number: an engine that keeps more has the rest held against it."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * head * torch.bfloat16.itemsize)


def _resident() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kibibytes) * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure this process and print the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=main.__doc__)
    parser.add_argument("base", type=Path)
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--sequences", type=int, default=32)
    parser.add_argument("--idle", type=int, default=10)
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    found = measure(options.base, options.adapter, sequences=options.sequences, idle=options.idle)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
