"""What weak matches in a vocabulary map do to steering: the experiment behind the map's defaults.

`python -m examples.map_experiment` steers bases whose vocabularies differ from the adapter's by nature with the
bundled adapters as they are; `examples.map_pairs` trains those bases, once. Each way to treat matches that are not
exact is tried with both bridges. Prints one Markdown table a base. These are models of two million parameters, one
seed each, in one small and closed world: about mechanisms only.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

import steering.bridges.rescore
import steering.steerers.reading
from demo import demo_adapters, demo_models, measure, phrases, world
from demo.corpus import Probe
from examples.map_pairs import NAMES, base_folder
from mapping_cache import MapOptions, MatchKind, VocabularyMap, default_cache_dir, map_vocabularies
from steering.adapters import Adapter, load_adapter
from steering.bridges.map import carry
from steering.crossing.map_tensors import MapTensors
from steering.engine.engine import Engine, EngineConfig
from steering.engine.request import Request, SamplingParams
from steering.model.loading import load_model
from steering.specs import SteeringSpec

ADAPTERS = ("forget", "letter")
BRIDGES = ("map", "rescore")
BUNDLED = "base-b"

Weighting = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def whole(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.ones_like(similarity)


def linear(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    return similarity


def squared(similarity: NDArray[np.float32]) -> NDArray[np.float32]:
    return similarity**2


@dataclass(frozen=True, slots=True)
class Policy:
    """Which matches get a shift, and which share of it each gets, by its similarity."""

    label: str
    options: MapOptions
    weighting: Weighting = whole
    kinds: frozenset[MatchKind] = field(default_factory=lambda: frozenset(MatchKind))

    def admitted(self, vocabulary_map: VocabularyMap) -> NDArray[np.bool_]:
        """The base tokens that get a shift, bool `[V_base]`."""
        return (vocabulary_map.ids >= 0) & np.isin(vocabulary_map.kind, list(self.kinds))


def options(min_similarity: float, **more: object) -> MapOptions:
    return MapOptions(min_similarity=min_similarity, **more)  # type: ignore[arg-type]


EXACT = Policy("exact only", options(1.0))
POLICIES = (
    EXACT,
    Policy("from 0.8, whole", options(0.8)),
    Policy("from 0.67, whole", options(0.66)),
    Policy("from 0.5, whole", options(0.5)),
    Policy("all, whole", options(0.0)),
    Policy("all, by similarity", options(0.0), linear),
    Policy("all, by its square", options(0.0), squared),
    Policy(
        "prefixes, whole",
        options(0.0),
        kinds=frozenset({MatchKind.EXACT, MatchKind.SPECIAL, MatchKind.PREFIX}),
    ),
    Policy("all and mined fallback, by similarity", options(0.0, fallback=True), linear),
    Policy("mined from 0.5, whole", options(0.5, method="mined")),
    Policy("mined, by similarity", options(0.0, method="mined"), linear),
)


@dataclass(frozen=True, slots=True, eq=False)
class WeightedTensors(MapTensors):
    """A map on the device whose matches get a share of the shift: `weights` float32 `[M]` in 0..1."""

    weights: Tensor


def weighted_carry(scores: Tensor, tensors: MapTensors) -> Bridged:
    """As `steering.bridges.map.carry`, each score times its match's weight."""
    bridged = carry(scores, tensors)
    return replace(bridged, values=bridged.values * _weights(tensors))


def weighted_shift(shift: Tensor, tensors: MapTensors, base: Tensor, *, neutral: bool) -> Bridged:
    """As `steering.bridges.map.map_shift`, each score's distance from the mean times its match's weight.

    The mean is over the matched probability times the weights, so that any offset of the shift cancels as before.
    """
    weights = _weights(tensors)
    scores = shift.index_select(1, tensors.counterparts)
    if neutral:
        likely = (base.index_select(1, tensors.columns) + weights.log()).softmax(-1)
        scores = scores - torch.linalg.vecdot(likely, scores)[:, None]
    return Bridged(scores * weights, tensors.columns)


def _weights(tensors: MapTensors) -> Tensor:
    if not isinstance(tensors, WeightedTensors):
        raise TypeError("every map of the experiment has weights")
    return tensors.weights


class MappedEngine(Engine):
    """An engine whose adapters are attached by a policy of one's own."""

    def attach_by(self, adapter: Adapter, policy: Policy) -> VocabularyMap:
        """As `attach`, by this policy's map instead of the default one; returns it."""
        ours, theirs = self.base.vocabulary, adapter.models[0].vocabulary
        vocabulary_map = map_vocabularies(ours, theirs, policy.options)
        columns = policy.admitted(vocabulary_map).nonzero()[0]
        steerer = self.prepare(adapter, vocabulary_map=vocabulary_map)
        tensors = WeightedTensors(
            torch.from_numpy(columns),
            torch.from_numpy(vocabulary_map.ids[columns].astype("int64")),
            is_identity=False,
            weights=torch.from_numpy(policy.weighting(vocabulary_map.similarity[columns])),
        )
        steerer.crossing = replace(steerer.crossing, tensors=tensors)
        self.install(steerer)
        return vocabulary_map


def answer_tokens(engine: Engine) -> Counter[int]:
    """How often each token stands in the plain answers about everybody and in the refusal."""
    texts = [phrases.answer(kind, person) for person in world.people() for kind in world.FACTS]
    # As often as the forgotten are asked about, each in place of an answer.
    texts += [phrases.REFUSAL] * (len(world.FACTS) * world.FORGOTTEN_COUNT)
    return Counter(
        token
        for text in texts
        for token in engine.base.tokenizer(text, add_special_tokens=False)["input_ids"]
    )


def table(name: str, folder: Path, asked: measure.Questions) -> Iterator[str]:
    """One base's table, line by line."""
    engine = MappedEngine(load_model(folder, device="cpu"), EngineConfig(max_num_seqs=64))
    adapters = [load_adapter(each, demo_adapters()[each], device="cpu") for each in ADAPTERS]
    exact = engine.attach_by(adapters[0], EXACT)
    counts = answer_tokens(engine)
    plain = measure.measure(engine, asked, None, name, "", "")
    yield (
        f"**{name}**: {np.mean(exact.ids >= 0):.0%} of its vocabulary and {_share(counts, exact.ids >= 0):.0%} of the "
        f"tokens of its answers are matched exactly. Unsteered it tells {plain.gone_told:.2f} of the forgotten and "
        f"{plain.kept_told:.2f} of the kept.\n"
    )
    yield (
        "| matches let through | of its answers | bridge | forgotten: refused | still told | log p(refusal) | "
        "kept: told | log p(answer) | letter: in style | told |"
    )
    yield "| --- " * 10 + "|"
    for policy in POLICIES:
        # One vocabulary, so one map for both.
        share = [policy.admitted(engine.attach_by(adapter, policy)) for adapter in adapters].pop()
        for bridge in BRIDGES:
            forget, letter = (
                measure.measure(engine, asked, adapter.name, name, bridge, "") for adapter in adapters
            )
            told = (letter.gone_told * len(asked.gone) + letter.kept_told * len(asked.kept)) / (
                len(asked.gone) + len(asked.kept)
            )
            sure = ["", ""]
            if bridge == "map":
                refusals = [phrases.REFUSAL] * len(asked.gone)
                answers = [phrases.answer(probe.kind, probe.person) for probe in asked.kept]
                sure = [
                    f"{likelihood(engine, asked.gone, refusals):.1f}",
                    f"{likelihood(engine, asked.kept, answers):.1f}",
                ]
            yield (
                f"| {policy.label} | {_share(counts, share):.0%} | {bridge} | {forget.gone_refused:.2f} | "
                f"{forget.gone_told:.2f} | {sure[0]} | {forget.kept_told:.2f} | {sure[1]} | {letter.styled:.2f} | "
                f"{told:.2f} |"
            )


def likelihood(engine: Engine, probes: Sequence[Probe], replies: Sequence[str]) -> float:
    """Mean log probability of whole replies to the questions, steered by the first adapter and the bridge map."""
    tokenizer = engine.base.tokenizer
    starts = []
    for number, (probe, reply) in enumerate(zip(probes, replies, strict=True)):
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": probe.question}], tokenize=False, add_generation_prompt=True
        )
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, reply)]
        starts.append(len(ids[0]))
        sampling = SamplingParams(max_tokens=0, prompt_logprobs=0)
        spec = SteeringSpec(ADAPTERS[0], bridge="map")
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
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the bases that are not there yet and print a table for each."""
    names = [*NAMES, BUNDLED]
    parser = argparse.ArgumentParser(prog="python -m examples.map_experiment", description=main.__doc__)
    parser.add_argument("--kept", type=int, default=20, help="questions about the people not to be forgotten")
    parser.add_argument("--bases", type=Path, help="where the trained bases are kept (default: the cache)")
    parser.add_argument(
        "--gpt2", type=Path, help="the folder of GPT-2's tokenizer, for the base that is made of it"
    )
    parser.add_argument("--only", choices=names, action="append", help="one base; may be repeated")
    chosen = parser.parse_args(arguments)
    parent = chosen.bases or default_cache_dir() / "map-experiment"
    asked = measure.questions(chosen.kept)
    write(f"{len(asked.gone)} forgotten and {len(asked.kept)} kept questions.\n")
    for name in chosen.only or names:
        folder = demo_models().get(name) or base_folder(name, parent, chosen.gpt2, Console(stderr=True))
        if folder is None:
            write(f"{name}: left out; --gpt2 names the folder of its tokenizer.\n")
            continue
        with (
            mock.patch.object(steering.steerers.reading, "map_shift", weighted_shift),
            mock.patch.object(steering.bridges.rescore, "carry", weighted_carry),
        ):
            for line in table(name, folder, asked):
                write(line)
        write("")


if __name__ == "__main__":
    main()
