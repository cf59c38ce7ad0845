"""Throughput against other systems: transformers' `generate`, its continuous batching, and the published loop.

`python -m benchmarks.peers` serves one workload by our engine and by each peer, with equal weights, and compares useful
generated tokens a second. The workload has 48 requests with prompts and outputs of 16 to 256 tokens. All of them wait
at the start, decoding is greedy, and nothing ends early. The sides take turns within each repeat, and the figures are
ratios within one repeat. A static batch runs to its longest output, in arrival order; only the tokens that were asked
for count. No side may keep a prompt from one repeat to the next.

Serving everything takes the slow sides more than an hour, so by default they are sampled. Of the static batches of 8
and of 16, each repeat runs one, another one each time. Of the published loop's requests, each repeat runs two. A side's
throughput is its own tokens over its own time. Our engine, the static batch of 48 and continuous batching always serve
everything. `--whole` samples nothing. Prints a table, then one JSON line.
"""

from __future__ import annotations

import gc
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table
from transformers import PretrainedConfig

from benchmarks.report.bar import Bar, spread
from benchmarks.report.machine import torch_machine
from benchmarks.report.options import add_device, make_parser
from benchmarks.report.report import Report
from benchmarks.systems.published_loop import PublishedLoop
from benchmarks.systems.sides import Result, continuously, looped, measure, ours, ratios, static
from benchmarks.systems.transformers_peer import continuous, generate, plain_model
from benchmarks.workloads.engines import make_engine
from benchmarks.workloads.jobs import Job, mixed_jobs
from benchmarks.workloads.models import random_delta, random_model
from benchmarks.workloads.shapes import Shapes, add_shapes, named_shapes
from benchmarks.workloads.tokenizers import Tokenizers, read_tokenizers
from steering.engine.engine import Engine
from steering.engine.request import Request, SamplingParams
from steering.specs import SteeringSpec

STATIC = (8, 16, 48)
CONTINUOUS = (16, 48)
STEERING = (SteeringSpec("delta"),)
_CHECKED, _CHECKED_TOKENS = 4, 8
# Random weights in bfloat16 give near ties, and everything after a tie that falls the other way differs.
_ALIKE = 0.5
_SAMPLED = "one static batch of 8 and of 16 a repeat, two requests of the published loop"


@dataclass(frozen=True, slots=True)
class Setting:
    """A run's options. `tokenizers.small` is the delta's vocabulary."""

    shapes: Shapes
    tokenizers: Tokenizers
    requests: int = 48
    repeats: int = 3
    whole: bool = False
    device: str = "cpu"

    def engine(self, base: PretrainedConfig, tokenizer: Any) -> Engine:
        """Our engine over a random base, with the delta. It runs as many requests at once as the largest batch."""
        dtype, device = self.shapes.dtype, self.device
        delta = random_model(self.shapes.delta, self.tokenizers.small, dtype=dtype, device=device)
        loaded = random_model(base, tokenizer, dtype=dtype, device=device)
        engine = make_engine(loaded, max(STATIC), prefix_caching=False)
        engine.session.attach(random_delta("delta", delta))
        return engine

    def plain(self, config: PretrainedConfig) -> Any:
        """The same weights for transformers alone."""
        return plain_model(config, dtype=self.shapes.dtype, device=self.device)


def our_tokens(engine: Engine, jobs: Sequence[Job], steering: tuple[SteeringSpec, ...]) -> list[list[int]]:
    """The tokens that our engine generates for each job. Raises RuntimeError when a request fails."""
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
    """The share of tokens that come before each request's first difference."""
    same = 0
    for one, other in zip(left, right, strict=True):
        differing = (place for place, pair in enumerate(zip(one, other, strict=True)) if pair[0] != pair[1])
        same += next(differing, len(one))
    return same / sum(map(len, left))


def check(engine: Engine, base: Any, delta: Any, vocabulary: int) -> dict[str, float]:
    """Compare the tokens that the sides generate for short requests. Returns the share that is alike, by side.

    Raises SystemExit where a side generates other tokens than ours.
    """
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
            raise SystemExit(f"{name} generates other tokens than our engine: {share:.0%} are alike")
    return shares


def over_shared(setting: Setting) -> tuple[list[Result], dict[str, float]]:
    """Steered and unsteered over one vocabulary, against transformers, and the shares of alike tokens by side."""
    shapes, small = setting.shapes, setting.tokenizers.small
    engine = setting.engine(shapes.shared, small)
    base, delta = setting.plain(shapes.shared), setting.plain(shapes.delta)
    # This warms every side up, too.
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
    """Steered across two vocabularies, against the published loop, and the counts of the loop.

    Random weights soon repeat one token. So nearly all tokens of a request are exact, which is cheap for the loop, or
    nearly all are inexact, which is expensive. `exact_share_of_all`, taken from our engine's tokens, tells how well the
    loop's sample represents all requests.
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
    loop.reset_counts()
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
    """The ratios that are held against bars."""
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


def side_table(results: Sequence[Result]) -> Table:
    """Every side's throughput."""
    table = Table("requests", "side", "tokens/s, median (range)", "sampled")
    for result in results:
        table.add_row(result.part, result.name, spread(result.rates, 1), "yes" if result.is_sampled else "")
    return table


def run(setting: Setting) -> Report:
    """Measure every side over the shared vocabulary, then across vocabularies."""
    shared, shares = over_shared(setting)
    gc.collect()  # frees the first models before the next ones are made
    crossed, loop = across(setting)
    results = shared + crossed
    figures = {
        "requests": setting.requests,
        "whole": setting.whole,
        "sampled": None if setting.whole else _SAMPLED,
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
    note = (
        f"The published loop met {loop['exact_share']:.0%} exact tokens; "
        f"all requests have {loop['exact_share_of_all']:.0%}."
    )
    return Report(
        "peers",
        side_table(results),
        bars(results),
        figures,
        setting.repeats,
        torch_machine(setting.device),
        notes=(note,),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure throughput against transformers and the published loop. Prints a table, then one JSON line."""
    parser = make_parser("peers", main.__doc__)
    parser.add_argument("--requests", type=int, default=48, help="requests in the workload (default: 48)")
    parser.add_argument("--whole", action="store_true", help="sample nothing; takes hours")
    add_device(parser)
    add_shapes(parser)
    options = parser.parse_args(arguments)
    shapes = named_shapes(options.base, options.delta)
    with tempfile.TemporaryDirectory() as scratch:
        tokenizers = read_tokenizers(Path(scratch))
    setting = Setting(shapes, tokenizers, options.requests, options.repeats, options.whole, options.device)
    run(setting).publish()


if __name__ == "__main__":
    main()
