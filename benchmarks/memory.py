"""The memory that a process holds beyond its models' weights and the keys and values that it computed.

`python -m benchmarks.memory BASE ADAPTER` serves one batch in this process, attaches more adapters that no request
uses, and prints one JSON line. Each measurement needs a new process, because a process keeps memory that it once took.
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
from benchmarks.workloads.jobs import SEED, random_prompt
from benchmarks.workloads.models import weight_bytes
from steering.adapters import load_adapter
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.model.loading import load_model
from steering.specs import SteeringSpec

_TOKENS = 16


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes.

    `resident`: the whole process after the batch. `weights`: both models' parameters. `pages`: both pools as the batch
    fills them. `idle`: the memory that one unused adapter adds to the process. `idle_weights`: its weights among that.
    """

    resident: int
    weights: int
    pages: int
    idle: float
    idle_weights: int

    @property
    def beyond(self) -> int:
        """Memory that is neither weights nor keys and values."""
        return self.resident - self.weights - self.pages

    @property
    def idle_beyond(self) -> float:
        """Memory of an unused adapter beyond its weights."""
        return self.idle - self.idle_weights


def measure_apart(base: Path, adapter: Path, *, sequences: int, idle: int) -> Memory:
    """Call `measure` in a new process. Raises RuntimeError with its stderr when it fails."""
    command = [sys.executable, "-m", "benchmarks.memory", str(base), str(adapter)]
    command += ["--sequences", str(sequences), "--idle", str(idle)]
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root)
    if done.returncode:
        raise RuntimeError(f"the process that measures memory failed:\n{done.stderr}")
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def measure(base: Path, adapter: Path, *, sequences: int, idle: int) -> Memory:
    """Serve `sequences` steered requests together, then attach `idle` adapters from the same folder."""
    # The batch fills the whole pool. Of a larger pool an unknown part would be resident.
    config = EngineConfig(max_num_seqs=sequences, max_model_len=PROMPT + _TOKENS)
    engine = Engine(load_model(base, device="cpu"), config)
    engine.session.attach(load_adapter("used", adapter, device="cpu"))
    _serve(engine, sequences)
    shape, tiny = AutoConfig.from_pretrained(base), AutoConfig.from_pretrained(adapter)
    resident = _resident()
    # A load gives back memory that the batch left free. So the first one is not measured.
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
    """Bytes of one token's keys and values in bfloat16. Wider ones count as memory beyond."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * config.num_key_value_heads * head * torch.bfloat16.itemsize)


def _resident() -> int:
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    kibibytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))
    return int(kibibytes) * 1024


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the memory of this process and print it as one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=main.__doc__)
    parser.add_argument("base", type=Path, help="the base's folder")
    parser.add_argument("adapter", type=Path, help="the folder of a delta")
    parser.add_argument("--sequences", type=int, default=32, help="requests in the batch")
    parser.add_argument("--idle", type=int, default=10, help="unused adapters")
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    found = measure(options.base, options.adapter, sequences=options.sequences, idle=options.idle)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")


if __name__ == "__main__":
    main()
