"""How weak matches in a vocabulary map act on steering: the experiment behind the map's defaults.

`python -m examples.map_experiment` steers the bundled base-b, whose vocabulary is not the adapter's, with maps that let
weaker and weaker matches through, with the fallback and without, and with both treatments of unmatched tokens. The
two bundled vocabularies agree on nearly all of their own text, as real ones seldom do. So the second part takes tokens
of the adapter's vocabulary out of what can be matched, at random, until only a given share of the answers' tokens is
still matched exactly, and lets weaker and weaker matches take their place. Prints two Markdown tables. The bundled
models are tiny and the drawn vocabularies are not real ones: this is about mechanisms only.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from demo import demo_adapters, demo_models, measure, phrases, world
from mapping_cache import CanonicalVocabulary, MapOptions, VocabularyMap, map_vocabularies
from steering.adapters import Adapter, load_adapter
from steering.engine import Engine, EngineConfig
from steering.models import load_model
from steering.steerer import Steerer

SEED = 0
ADAPTER = "forget"
BRIDGES = ("map", "rescore")
SHARES = (0.9, 0.75, 0.6)
DRAWS = 5


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
    yield (
        f"{base} steered by `{ADAPTER}`. Exact or special matches are {np.mean(exact.ids >= 0):.0%} of its "
        f"vocabulary and {answer_share(engine, exact):.0%} of the tokens of its answers.\n"
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
    """The rows of the second table, each the mean and the least over `DRAWS` draws of the tokens taken out."""
    engine, adapter = load(base)
    yield f"{base}, with tokens of the adapter taken out of what can be matched, at random ({DRAWS} draws).\n"
    yield (
        "| exact share of its answers | min_similarity | bridge | forgotten: refused, mean (least) | "
        "forgotten: still told | kept: told, mean (least) |"
    )
    yield "| --- | --- | --- | --- | --- | --- |"
    counts = answer_tokens(engine)
    for share in SHARES:
        left = [thin(engine, adapter.models[0].vocabulary, counts, share, draw) for draw in range(DRAWS)]
        exact = (map_vocabularies(engine.base.vocabulary, steering) for steering in left)
        reached = statistics.mean(answer_share(engine, vocabulary_map) for vocabulary_map in exact)
        for similarity, bridges in ((1.0, BRIDGES), (0.7, ("map",)), (0.5, ("map",)), (0.0, BRIDGES)):
            for bridge in bridges:
                rows = []
                for steering in left:
                    options = MapOptions(min_similarity=similarity)
                    engine.attach_by(adapter, map_vocabularies(engine.base.vocabulary, steering, options))
                    rows.append(measure.measure(engine, asked, ADAPTER, base, bridge, ""))
                refused = _mean_and_least(row.gone_refused for row in rows)
                told = _mean_and_least(row.kept_told for row in rows)
                leaked = statistics.mean(row.gone_told for row in rows)
                yield f"| {reached:.2f} | {similarity:.1f} | {bridge} | {refused} | {leaked:.2f} | {told} |"


def _mean_and_least(shares: Iterable[float]) -> str:
    every = list(shares)
    return f"{statistics.mean(every):.2f} ({min(every):.2f})"


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


def thin(
    engine: Engine, steering: CanonicalVocabulary, counts: Counter[int], share: float, seed: int
) -> CanonicalVocabulary:
    """The adapter's vocabulary without tokens drawn at random until `share` of the answers' tokens is matched exactly.

    The tokens of one byte stay: every vocabulary has them.
    """
    whole = map_vocabularies(engine.base.vocabulary, steering)
    uses = Counter({int(whole.ids[token]): count for token, count in counts.items() if whole.ids[token] >= 0})
    spelled = list(steering.tokens)
    long = [token for token, own in enumerate(spelled) if own and len(own) > 1]
    random.Random(seed).shuffle(long)
    matched, wanted = uses.total(), share * counts.total()
    for token in long:
        if matched <= wanted:
            break
        # A token so frequent that taking it would miss the share by far stays.
        if matched - uses[token] >= wanted - 0.01 * counts.total():
            spelled[token] = None
            matched -= uses[token]
    return replace(steering, tokens=tuple(spelled), fingerprint=f"{steering.fingerprint}-{share}-{seed}")


def write(line: str) -> None:
    """One line on stdout, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both parts and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m examples.map_experiment", description=main.__doc__)
    parser.add_argument("--kept", type=int, default=20, help="questions about the people not to be forgotten")
    options = parser.parse_args(arguments)
    torch.manual_seed(SEED)
    asked = measure.questions(options.kept)
    write(f"{len(asked.gone)} forgotten and {len(asked.kept)} kept questions.\n")
    for part in (across, thinned):
        for line in part("base-b", asked):
            write(line)
        write("")


if __name__ == "__main__":
    main()
