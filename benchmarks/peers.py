"""Throughput beside what else there is: transformers' `generate`, its continuous batching, and the published loop.

`python -m benchmarks.peers` serves one workload (48 requests, prompts and outputs of 16 to 256 tokens, all waiting at
the start, greedy, nothing ends early) by us and by each peer with equal weights, in useful generated tokens a second.
Sides take turns within each repeat, and the figures are ratios within one repeat. A static batch runs to its longest
output, in arrival order; only the tokens that were asked for count. No side may keep a prompt from one repeat to the
next.

All of it takes the slow sides more than an hour. By default they are sampled: of the static batches of 8 and of 16 one
a repeat, another one each time; of the published loop's requests two a repeat; a side's throughput is its own tokens
over its own time. Ours, the static batch of 48 and continuous batching always serve everything. `--whole` samples
nothing. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import copy
import gc
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from transformers import PretrainedConfig

from benchmarks.published_loop import PublishedLoop
from benchmarks.record import Bar, emit, show_bars, spread
from benchmarks.sides import Result, continuously, looped, measure, ours, ratios, static
from benchmarks.transformers_peer import continuous, generate, plain_model
from benchmarks.workloads import (
    BASES,
    DELTAS,
    KL_EVERY,
    LLAMA_VOCABULARY,
    QWEN_VOCABULARY,
    SEED,
    Job,
    Tokenizers,
    mixed_jobs,
    random_delta,
    random_model,
    read_tokenizers,
)
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.specs import SteeringSpec

STATIC = (8, 16, 48)
CONTINUOUS = (16, 48)
STEERING = (SteeringSpec("delta"),)
_CHECKED, _CHECKED_TOKENS = 4, 8
# Random weights in bf16 give near ties, and a tie that falls the other way changes all that follows.
_ALIKE = 0.5


@dataclass(frozen=True, slots=True)
class Shapes:
    """What is run: a base over the shared vocabulary, one over its own, and the delta that steers both."""

    shared: PretrainedConfig
    crossed: PretrainedConfig
    delta: PretrainedConfig
    dtype: torch.dtype = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Setting:
    """A run's options. `tokenizers.small` is the delta's vocabulary and the shared one."""

    shapes: Shapes
    tokenizers: Tokenizers
    requests: int = 48
    repeats: int = 3
    whole: bool = False
    device: str = "cpu"

    def engine(self, base: PretrainedConfig, tokenizer: Any) -> Engine:
        """Ours over a random base, the delta attached; it may run as many at once as the largest static batch."""
        dtype, device = self.shapes.dtype, self.device
        # A model keeps the configuration that it was made from, and notes its attention function there.
        base, tiny = copy.deepcopy(base), copy.deepcopy(self.shapes.delta)
        delta = random_model(tiny, self.tokenizers.small, dtype=dtype, device=device)
        engine = Engine(
            random_model(base, tokenizer, dtype=dtype, device=device),
            EngineConfig(max_num_seqs=max(STATIC), prefix_caching=False, kl_every=KL_EVERY),
        )
        engine.session.attach(random_delta("delta", delta))
        return engine

    def plain(self, config: PretrainedConfig) -> Any:
        """The same weights for transformers alone."""
        return plain_model(config, dtype=self.shapes.dtype, device=self.device)


def our_tokens(engine: Engine, jobs: Sequence[Job], steering: tuple[SteeringSpec, ...]) -> list[list[int]]:
    """What ours generates, for comparing. Raises RuntimeError when a request fails."""
    found: dict[str, list[int]] = {}
    for number, job in enumerate(jobs):
        sampling = SamplingParams(max_tokens=job.tokens, temperature=0.0, ignore_eos=True)
        engine.add_request(Request(str(number), job.prompt, sampling, steering))
        found[str(number)] = []
    while engine.has_work:
        for output in engine.step():
            if output.error is not None:
                raise RuntimeError(output.error)
            found[output.request_id].extend(output.token_ids)
    return list(found.values())


def alike(left: Sequence[Sequence[int]], right: Sequence[Sequence[int]]) -> float:
    """Share of the tokens that stand before each request's first difference."""
    same = 0
    for one, other in zip(left, right, strict=True):
        differing = (place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        same += next(differing, len(one))
    return same / sum(map(len, left))


def check(engine: Engine, base: Any, delta: Any, vocabulary: int) -> dict[str, float]:
    """That the sides generate the same from short requests. Raises SystemExit where they clearly do not."""
    short = [
        replace(job, prompt=job.prompt[:16], tokens=_CHECKED_TOKENS)
        for job in mixed_jobs(_CHECKED, vocabulary)
    ]
    unsteered, steered = our_tokens(engine, short, ()), our_tokens(engine, short, STEERING)
    shares = {
        "generate": alike(unsteered, generate(base, short)),
        "continuous batching": alike(unsteered, continuous(base, short, len(short))[1]),
        "generate + processor": alike(steered, generate(base, short, delta)),
    }
    for name, share in shares.items():
        if share < _ALIKE:
            raise SystemExit(
                f"{name} generates something else than ours: {share:.0%} of the tokens are alike"
            )
    return shares


def over_shared(setting: Setting) -> tuple[list[Result], dict[str, float]]:
    """Steered and unsteered over one vocabulary, beside transformers; and how alike the sides generate."""
    shapes, small = setting.shapes, setting.tokenizers.small
    engine = setting.engine(shapes.shared, small)
    base, delta = setting.plain(shapes.shared), setting.plain(shapes.delta)
    # Also warms every side up.
    shares = check(engine, base, delta, small.vocab_size)
    jobs = mixed_jobs(setting.requests, small.vocab_size)
    sizes = [size for size in STATIC if size <= len(jobs)] or [len(jobs)]
    limits = [limit for limit in CONTINUOUS if limit <= len(jobs)] or [len(jobs)]
    sides = [
        ours("steered", engine, jobs, STEERING),
        *(static("steered", base, jobs, size, whole=setting.whole, delta=delta) for size in sizes),
        ours("unsteered", engine, jobs, ()),
        *(static("unsteered", base, jobs, size, whole=setting.whole) for size in sizes),
        *(continuously(base, jobs, limit) for limit in limits),
    ]
    return measure(sides, setting.repeats), shares


def across(setting: Setting) -> tuple[list[Result], dict[str, float]]:
    """Steered across two vocabularies beside the published loop; and what the loop met.

    Random weights soon repeat one token, so that a request is nearly all exact, and cheap for the loop, or nearly all
    inexact, and dear. `exact_share_of_all`, from what ours generates, says how well the loop's sample stands for all.
    """
    shapes, tokenizers = setting.shapes, setting.tokenizers
    engine = setting.engine(shapes.crossed, tokenizers.large)
    loop = PublishedLoop(
        setting.plain(shapes.crossed),
        setting.plain(shapes.delta),
        (tokenizers.large, tokenizers.small),
        engine.session.vocabulary_map("delta"),
    )
    jobs = mixed_jobs(setting.requests, tokenizers.large.vocab_size)
    short = replace(jobs[0], prompt=jobs[0].prompt[:16], tokens=_CHECKED_TOKENS)
    our_tokens(engine, [short], STEERING)
    loop.generate(short)
    loop.read = loop.exact = loop.inexact = 0
    sides = [ours("across", engine, jobs, STEERING), looped(loop, jobs, whole=setting.whole)]
    results = measure(sides, setting.repeats)
    generated = [token for tokens in our_tokens(engine, jobs, STEERING) for token in tokens]
    return results, {
        "exact": loop.exact,
        "inexact": loop.inexact,
        "read_again": loop.read,
        "exact_share": round(loop.exact / (loop.exact + loop.inexact), 4),
        "exact_share_of_all": round(loop.exact_share(generated), 4),
    }


def bars(results: Sequence[Result]) -> list[Bar]:
    """What is held against bars."""
    return [
        Bar(
            "steered / best generate + LogitsProcessor", ratios(results, "steered", "generate"), at_least=1.5
        ),
        Bar("unsteered / best generate", ratios(results, "unsteered", "generate"), at_least=1.2),
        Bar(
            "unsteered / best continuous batching",
            ratios(results, "unsteered", "continuous"),
            at_least=2.0,
        ),
        Bar("across vocabularies / published loop", ratios(results, "across", "published"), at_least=10.0),
    ]


def show(results: Sequence[Result]) -> None:
    """Print every side's throughput."""
    table = Table("requests", "side", "tokens/s, median (range)", "sampled")
    for result in results:
        table.add_row(result.part, result.name, spread(result.rates, 1), "yes" if result.is_sampled else "")
    Console(width=110).print(table)


def run(setting: Setting) -> list[Bar]:
    """Measure, print the tables, then the JSON line."""
    shared, shares = over_shared(setting)
    gc.collect()  # the first bases go before the second ones come
    crossed, loop = across(setting)
    results = shared + crossed
    show(results)
    found = bars(results)
    show_bars(found)
    print(
        f"The published loop met {loop['exact_share']:.0%} exact tokens; "
        f"all requests have {loop['exact_share_of_all']:.0%}."
    )
    figures = {
        "requests": setting.requests,
        "whole": setting.whole,
        "sampled": "one static batch of 8 and of 16 a repeat, two requests of the published loop"
        if not setting.whole
        else None,
        "real_tokenizers": setting.tokenizers.real,
        "alike": {name: round(share, 3) for name, share in shares.items()},
        "published_loop": loop,
        "tokens_per_second": [
            {
                "part": result.part,
                "side": result.name,
                "sampled": result.is_sampled,
                "median": round(statistics.median(result.rates), 2),
                "values": [round(rate, 2) for rate in result.rates],
            }
            for result in results
        ],
    }
    emit("peers", found, figures, seed=SEED, repeats=setting.repeats, device=setting.device)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Throughput over transformers' and the published loop's on the same requests."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=main.__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--requests", type=int, default=48)
    parser.add_argument("--whole", action="store_true", help="sample nothing; takes hours")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--base", choices=BASES, default="qwen2-0.5b")
    parser.add_argument("--delta", choices=DELTAS, default="15m")
    options = parser.parse_args(arguments)
    base = BASES[options.base]
    shapes = Shapes(base(LLAMA_VOCABULARY), base(QWEN_VOCABULARY), DELTAS[options.delta]())
    with tempfile.TemporaryDirectory() as scratch:
        tokenizers = read_tokenizers(Path(scratch))
        run(Setting(shapes, tokenizers, options.requests, options.repeats, options.whole, options.device))


if __name__ == "__main__":
    main()
