"""The steered log-likelihoods of texts, without server or engine: `python -m tests.clients.offline_scores < JOBS`.

Runs in the project's own environment. Each job is a JSON object: the folders `base` and `adapter` (a delta's, or null),
and `pairs` of a context and a continuation. Its answer is a list of [log-likelihood, whether it is the greedy text].
"""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path

from tests.oracle import NaiveAdapter, NaiveModel, Oracle


def main() -> None:
    """Reads jobs as JSON from stdin and writes their answers as JSON to stdout."""
    sys.stdout.write(json.dumps([_answer(**job) for job in json.load(sys.stdin)]))


def _answer(base: str, adapter: str | None, pairs: list[tuple[str, str]]) -> list[tuple[float, bool]]:
    oracle = Oracle(_model(base), *([] if adapter is None else [_delta(Path(adapter))]))
    return [_score(oracle, context, continuation) for context, continuation in pairs]


@cache
def _model(folder: str) -> NaiveModel:
    return NaiveModel(Path(folder))


def _delta(folder: Path) -> NaiveAdapter:
    card = json.loads((folder / "adapter.json").read_text(encoding="utf-8"))
    settings = {key: card[key] for key in ("alpha", "bridge", "unmatched", "normalisation")}
    return NaiveAdapter((_model(str(folder)),), **settings)


def _score(oracle: Oracle, context: str, continuation: str) -> tuple[float, bool]:
    tokenizer = oracle.base.tokenizer
    before: list[int] = tokenizer.encode(context, add_special_tokens=False)
    ids: list[int] = tokenizer.encode(context + continuation, add_special_tokens=False)
    total, greedy = 0.0, True
    for end in range(len(before), len(ids)):
        row = oracle.logprobs(ids[:end])
        total += float(row[ids[end]])
        greedy &= int(row.argmax()) == ids[end]
    return total, greedy


if __name__ == "__main__":
    main()
