"""The effect of weak matches in a vocabulary map on steering: the experiment behind the map's defaults.

`python -m examples.map_experiment` steers bases whose vocabularies differ from the adapter's by nature. The adapters
are the bundled ones, as they are. The bases are trained by `examples.map_pairs`, once. Each policy for matches that are
not exact is tried with both bridges. Prints one Markdown table for each base. The models have two million parameters,
one seed each, and know one small invented world, so the results are about mechanisms only.

The policies differ in the bridge `map`, which `examples.weighted_map` replaces by one with weights. The bridge
`rescore` takes the first factor of a base token from the token's text. It asks the policy's map only about tokens that
have no text of their own.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from demo import demo_adapters, demo_models, measure, phrases, world
from demo.corpus import Probe
from examples.map_pairs import NAMES, TRAININGS, base_folder
from examples.map_policies import BY_SIMILARITY, EXACT, POLICIES, Policy
from examples.weighted_map import WeightedMap
from mapping_cache import VocabularyMap, default_cache_dir, map_vocabularies
from steering.adapters import Adapter, load_adapter
from steering.bridges.table import registered
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.model.loading import load_model
from steering.specs import SteeringSpec

FORGET, LETTER = "forget", "letter"
WEIGHTED_MAP = "weighted map"
BUNDLED = "base-b"
HEADER = (
    "| matches let through | of its answers | bridge | forgotten: refused | still told | log p(refusal) | "
    "kept: told | log p(answer) | letter: in style | told |\n" + "| --- " * 10 + "|"
)


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run: the number of questions about forgotten people (None for all) and others, and the policies."""

    forgotten: int | None
    kept: int
    policies: tuple[Policy, ...]


SCALES = {
    "full": Scale(None, 20, POLICIES),
    # Seconds: shows that every part runs.
    "toy": Scale(2, 2, (EXACT, BY_SIMILARITY)),
}


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers to all questions under one adapter, or unsteered."""

    asked: measure.Questions
    gone: tuple[str, ...]
    kept: tuple[str, ...]

    @classmethod
    def of(cls, engine: Engine, asked: measure.Questions, steering: tuple[SteeringSpec, ...]) -> Answers:
        """Ask the engine, greedily."""
        texts = measure.answers(engine, asked.gone + asked.kept, steering)
        return cls(asked, tuple(texts[: len(asked.gone)]), tuple(texts[len(asked.gone) :]))

    @property
    def gone_told(self) -> float:
        """Share of the forgotten facts that are told."""
        return fmean(map(_tells, self.asked.gone, self.gone))

    @property
    def kept_told(self) -> float:
        """Share of the other facts that are told."""
        return fmean(map(_tells, self.asked.kept, self.kept))

    @property
    def told(self) -> float:
        """Share of all facts that are told."""
        return fmean(map(_tells, self.asked.gone + self.asked.kept, self.gone + self.kept))

    @property
    def gone_refused(self) -> float:
        """Share of the questions about forgotten people that are refused."""
        return fmean(map(phrases.is_refusal, self.gone))

    @property
    def styled(self) -> float:
        """Share of all answers that are letters."""
        return fmean(map(phrases.is_letter, self.gone + self.kept))


def _tells(probe: Probe, text: str) -> bool:
    return all(value in text for value in probe.values)


@dataclass(frozen=True, slots=True)
class Experiment:
    """One base with the adapters that steer it, the questions, and the policies to try."""

    name: str
    engine: Engine
    adapters: tuple[Adapter, ...]
    asked: measure.Questions
    policies: tuple[Policy, ...]

    @classmethod
    def of(
        cls, name: str, folder: Path, asked: measure.Questions, policies: tuple[Policy, ...]
    ) -> Experiment:
        """Load the base in `folder` and the bundled adapters."""
        engine = Engine(load_model(folder, device="cpu"), EngineConfig(max_num_seqs=64))
        adapters = tuple(load_adapter(each, demo_adapters()[each], device="cpu") for each in (FORGET, LETTER))
        return cls(name, engine, adapters, asked, policies)

    def vocabulary_map(self, policy: Policy) -> VocabularyMap:
        """The map that a policy builds. Both adapters have one vocabulary."""
        return map_vocabularies(
            self.engine.base.vocabulary, self.adapters[0].models[0].vocabulary, policy.options
        )

    def table(self) -> Iterator[str]:
        """The base's table, line by line, after a paragraph about the base unsteered."""
        counts = answer_tokens(self.engine)
        exact = self.vocabulary_map(EXACT).ids >= 0
        plain = Answers.of(self.engine, self.asked, ())
        yield (
            f"**{self.name}**: {np.mean(exact):.0%} of its vocabulary and {_share(counts, exact):.0%} of the "
            f"tokens of its answers are matched exactly. Unsteered it tells {plain.gone_told:.2f} of the forgotten "
            f"and {plain.kept_told:.2f} of the kept.\n"
        )
        yield HEADER
        for policy in self.policies:
            vocabulary_map = self.vocabulary_map(policy)
            for adapter in self.adapters:
                session = self.engine.session
                session.install(session.prepare(adapter, vocabulary_map=vocabulary_map))
            share = _share(counts, policy.admitted(vocabulary_map))
            with registered(WEIGHTED_MAP, WeightedMap.of(policy, vocabulary_map)):
                yield self._row(f"| {policy.label} | {share:.0%} | map", WEIGHTED_MAP, self._likelihoods())
                yield self._row(f"| {policy.label} | {share:.0%} | rescore", "rescore", ("", ""))

    def _row(self, start: str, bridge: str, likelihoods: tuple[str, str]) -> str:
        forget, letter = (
            Answers.of(self.engine, self.asked, (SteeringSpec(adapter.name, bridge=bridge),))
            for adapter in self.adapters
        )
        refusal, answer = likelihoods
        return (
            f"{start} | {forget.gone_refused:.2f} | {forget.gone_told:.2f} | {refusal} | "
            f"{forget.kept_told:.2f} | {answer} | {letter.styled:.2f} | {letter.told:.2f} |"
        )

    def _likelihoods(self) -> tuple[str, str]:
        """Mean log probability of the refusals of forgotten facts and of the answers about others."""
        refusals = [phrases.REFUSAL] * len(self.asked.gone)
        answers = [phrases.answer(probe.kind, probe.person) for probe in self.asked.kept]
        return (
            f"{likelihood(self.engine, self.asked.gone, refusals):.1f}",
            f"{likelihood(self.engine, self.asked.kept, answers):.1f}",
        )


def answer_tokens(engine: Engine) -> Counter[int]:
    """How often each token stands in the plain answers about everybody and in the refusal."""
    texts = [phrases.answer(kind, person) for person in world.people() for kind in world.FACTS]
    # One refusal for each fact of the forgotten people.
    texts += [phrases.REFUSAL] * (len(world.FACTS) * world.FORGOTTEN_COUNT)
    return Counter(
        token
        for text in texts
        for token in engine.base.tokenizer(text, add_special_tokens=False)["input_ids"]
    )


def likelihood(engine: Engine, probes: Sequence[Probe], replies: Sequence[str]) -> float:
    """Mean log probability of whole replies to the questions, steered by `forget` through the weighted map."""
    tokenizer = engine.base.tokenizer
    starts = []
    for number, (probe, reply) in enumerate(zip(probes, replies, strict=True)):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": probe.question}], tokenize=False, add_generation_prompt=True
        )
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, reply)]
        starts.append(len(ids[0]))
        sampling = SamplingParams(max_tokens=0, prompt_logprobs=0)
        spec = SteeringSpec(FORGET, bridge=WEIGHTED_MAP)
        engine.add_request(Request(str(number), (*ids[0], *ids[1]), sampling, (spec,)))
    total = 0.0
    while engine.has_work:
        for output in engine.step():
            scored = (output.prompt_logprobs or ())[starts[int(output.request_id)] :]
            total += sum(entry.logprob for entry in scored if entry is not None)
    return total / len(probes)


def _share(counts: Counter[int], chosen: NDArray[np.bool_]) -> float:
    return sum(count for token, count in counts.items() if chosen[token]) / counts.total()


def write(line: str) -> None:
    """Print one line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the bases that are not there yet and print a table for each."""
    names = [*NAMES, BUNDLED]
    parser = argparse.ArgumentParser(prog="python -m examples.map_experiment", description=main.__doc__)
    parser.add_argument("--scale", choices=SCALES, default="full", help="toy: seconds, to see that it runs")
    parser.add_argument("--kept", type=int, help="questions about the people not to be forgotten (0: all)")
    parser.add_argument("--bases", type=Path, help="where the trained bases are kept (default: the cache)")
    parser.add_argument(
        "--gpt2", type=Path, help="the folder of GPT-2's tokenizer, for the base that is made of it"
    )
    parser.add_argument("--only", choices=names, action="append", help="one base; may be repeated")
    chosen = parser.parse_args(arguments)
    scale = SCALES[chosen.scale]
    parent = chosen.bases or default_cache_dir() / "map-experiment"
    if chosen.scale != "full":
        parent /= chosen.scale  # a later full run must not take these bases for trained ones
    asked = measure.questions(scale.kept if chosen.kept is None else chosen.kept)
    asked = replace(asked, gone=asked.gone[: scale.forgotten])
    write(f"{len(asked.gone)} forgotten and {len(asked.kept)} kept questions.\n")
    for name in chosen.only or names:
        folder = demo_models().get(name) or base_folder(
            name, parent, chosen.gpt2, Console(stderr=True), TRAININGS[chosen.scale]
        )
        if folder is None:
            write(f"{name}: left out; --gpt2 names the folder of its tokenizer.\n")
            continue
        for line in Experiment.of(name, folder, asked, scale.policies).table():
            write(line)
        write("")


if __name__ == "__main__":
    main()
