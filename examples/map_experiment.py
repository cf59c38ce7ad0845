"""How weak matches in a vocabulary map act on steering: the experiment behind the map's defaults.

`python -m examples.map_experiment` steers the bundled base-b, whose vocabulary is not the adapter's, with maps that let
weaker and weaker matches through, and then the bundled base-a, whose vocabulary is the adapter's, with maps from which
tokens were taken away at random until a given share of its answers' tokens is still matched. The first part settles
`min_similarity`, the fallback and what unmatched tokens get; the second asks from which share of matched text on a
map can be called good. Prints two Markdown tables. The bundled models are tiny: this is about mechanisms only.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from demo import corpus, demo_adapters, demo_models, measure, phrases, world
from mapping_cache import MapOptions, VocabularyMap, map_report, map_vocabularies
from steering.adapters import Adapter, load_adapter
from steering.engine import Engine, EngineConfig
from steering.models import load_model
from steering.steerer import Steerer

SEED = 0
ADAPTER = "forget"
BRIDGES = ("map", "rescore")
SHARES = (1.0, 0.95, 0.9, 0.85, 0.75, 0.6, 0.4)


class MappedEngine(Engine):
    """An engine whose adapters are attached by a map of one's own."""

    def attach_by(self, adapter: Adapter, vocabulary_map: VocabularyMap) -> None:
        """As `attach`, by this map instead of the default one."""
        steerer = Steerer(adapter, self.base, vocabulary_map, self.config.page_size)
        with self._lock:
            self._steerers[adapter.name] = steerer


@dataclass(frozen=True, slots=True)
class Variant:
    """A map and what unmatched tokens get."""

    min_similarity: float
    fallback: bool = False
    neutral: bool = True

    @property
    def label(self) -> str:
        """The variant as cells of the table."""
        fallback, unmatched = "mined" if self.fallback else "none", "neutral" if self.neutral else "zero"
        return f"{self.min_similarity:.1f} | {fallback} | {unmatched}"


def variants() -> Iterator[tuple[Variant, Sequence[str]]]:
    """Every variant with the bridges on which it can differ: rescoring has a zero of its own for the unmatched."""
    for similarity in (1.0, 0.7, 0.5, 0.0):
        yield Variant(similarity), BRIDGES
        yield Variant(similarity, neutral=False), ("map",)
    for similarity in (0.5, 0.0):
        yield Variant(similarity, fallback=True), BRIDGES


def across(base: str, asked: measure.Questions) -> Iterator[str]:
    """The rows of the first table."""
    engine, adapter = load(base)
    ours, theirs = engine.base.vocabulary, adapter.models[0].vocabulary
    exact = map_vocabularies(ours, theirs)
    report = map_report(exact, engine.base.tokenizer, adapter.models[0].tokenizer)
    yield (
        f"{base} steered by `{ADAPTER}`: exact or special matches are {np.mean(exact.ids >= 0):.0%} of its vocabulary, "
        f"{answer_share(engine, exact):.0%} of the tokens of its own answers and {report['text']['exact']:.0%} of those "
        "of the report's sample text.\n"
    )
    yield "| min_similarity | fallback | unmatched | bridge | steered tokens | forgotten: refused | kept: told |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for variant, bridges in variants():
        options = MapOptions(min_similarity=variant.min_similarity, fallback=variant.fallback)
        vocabulary_map = map_vocabularies(ours, theirs, options)
        engine.attach_by(replace(adapter, neutral=variant.neutral), vocabulary_map)
        for bridge in bridges:
            share = np.mean(vocabulary_map.ids >= 0)
            yield f"| {variant.label} | {bridge} | {share:.0%} | {figures(engine, asked, base, bridge)} |"


def thinned(base: str, asked: measure.Questions) -> Iterator[str]:
    """The rows of the second table."""
    engine, adapter = load(base)
    whole = map_vocabularies(engine.base.vocabulary, adapter.models[0].vocabulary)
    yield f"{base}, whose vocabulary is the adapter's, with tokens taken out of the map at random.\n"
    yield "| matched share of its answers | bridge | forgotten: refused | kept: told |"
    yield "| --- | --- | --- | --- |"
    counts = answer_tokens(engine)
    for share in SHARES:
        engine.attach_by(adapter, thin(whole, counts, share) if share < 1 else whole)
        for bridge in BRIDGES if share < 1 else ("map",):
            reached = answer_share(engine, engine.vocabulary_map(ADAPTER))
            yield f"| {reached:.2f} | {bridge} | {figures(engine, asked, base, bridge)} |"


def load(base: str) -> tuple[MappedEngine, Adapter]:
    """A bundled base's engine and the adapter, not attached. Raises SystemExit where there is no demo."""
    models, adapters = demo_models(), demo_adapters()
    if base not in models or ADAPTER not in adapters:
        raise SystemExit(f"the bundled demo has no {base} or no adapter {ADAPTER}")
    engine = MappedEngine(load_model(models[base], device="cpu"), EngineConfig(max_num_seqs=64))
    return engine, load_adapter(ADAPTER, adapters[ADAPTER], device="cpu")


def figures(engine: Engine, asked: measure.Questions, base: str, bridge: str) -> str:
    """Refusals on the forgotten and facts still told on the kept, as cells."""
    row = measure.measure(engine, asked, ADAPTER, base, bridge, "")
    return f"{row.gone_refused:.2f} | {row.kept_told:.2f}"


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


def answer_share(engine: Engine, vocabulary_map: VocabularyMap) -> float:
    """The share of the answers' tokens that the map steers."""
    counts = answer_tokens(engine)
    return sum(n for token, n in counts.items() if vocabulary_map.ids[token] >= 0) / counts.total()


def thin(whole: VocabularyMap, counts: Counter[int], share: float) -> VocabularyMap:
    """The map without tokens drawn at random until at most `share` of the counted ones is matched."""
    ids = whole.ids.copy()
    left, wanted = counts.total(), share * counts.total()
    tokens = sorted(counts)
    random.Random(SEED).shuffle(tokens)
    for token in tokens:
        # A token too frequent to go without missing the share by far stays.
        if left - counts[token] >= wanted - 0.01 * counts.total():
            ids[token] = -1
            left -= counts[token]
    return replace(whole, ids=ids)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both parts and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m examples.map_experiment", description=main.__doc__)
    parser.add_argument("--kept", type=int, default=40, help="questions about the people not to be forgotten")
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    asked = measure.questions(options.kept)
    print(f"{len(asked.gone)} forgotten and {len(asked.kept)} kept questions.\n")
    for part, base in ((across, "base-b"), (thinned, "base-a")):
        for line in part(base, asked):
            print(line, flush=True)
        print()


if __name__ == "__main__":
    main()
