"""Tools of the engine's tests: tiny models are made, saved and loaded once for the whole run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from steering.adapters import Adapter, load_adapter
from steering.engine.engine import Engine
from steering.engine.outputs import StepOutput
from steering.engine.request import Request, SamplingParams
from steering.engine.sequence import SequenceState
from steering.model.loading import LoadedModel, load_model
from steering.session.logprobs import TokenLogprob
from steering.session.row import SteeredRow
from steering.specs import SteeringSpec
from tests.models import save_folder, tiny_model, tokenizer_byte_level, tokenizer_sentencepiece
from tests.oracle import NaiveAdapter, NaiveModel

TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class Tiny:
    """Which tiny model: architecture, tokenizer ("sp" or "bl"), seed and how many ids its logits have beyond it."""

    arch: str = "llama"
    tokenizer: str = "sp"
    seed: int = 0
    padding: int = 0


@cache
def tokenizer_of(kind: str) -> PreTrainedTokenizerFast:
    return tokenizer_sentencepiece() if kind == "sp" else tokenizer_byte_level()


class Workshop:
    """Makes folders of tiny models and adapters and reads them back, both ways."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._made = 0
        self._folders: dict[Tiny, Path] = {}
        self._loaded: dict[Tiny, LoadedModel] = {}
        self._naive: dict[Tiny, NaiveModel] = {}
        self._adapters: dict[tuple[Any, ...], tuple[Adapter, NaiveAdapter]] = {}

    def folder(self, tiny: Tiny) -> Path:
        if tiny not in self._folders:
            tokenizer = tokenizer_of(tiny.tokenizer)
            special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
            model = tiny_model(tiny.arch, len(tokenizer) + tiny.padding, tiny.seed, special)
            self._folders[tiny] = save_folder(self._root / f"model{len(self._folders)}", model, tokenizer)
        return self._folders[tiny]

    def loaded(self, tiny: Tiny) -> LoadedModel:
        if tiny not in self._loaded:
            self._loaded[tiny] = load_model(self.folder(tiny), device="cpu", dtype="float32")
        return self._loaded[tiny]

    def naive(self, tiny: Tiny) -> NaiveModel:
        if tiny not in self._naive:
            self._naive[tiny] = NaiveModel(self.folder(tiny))
        return self._naive[tiny]

    def adapter(self, name: str, *parts: Tiny, **settings: Any) -> tuple[Adapter, NaiveAdapter]:
        """An adapter and its naive twin: a delta of one part, a proxy of two."""
        key = (name, parts, tuple(sorted(settings.items())))
        if key not in self._adapters:
            self._made += 1
            folder = self._root / f"adapter{self._made}"
            names = ("model",) if len(parts) == 1 else ("expert", "antiexpert")
            for part_name, part in zip(names, parts, strict=True):
                shutil.copytree(self.folder(part), folder / part_name)
            kind = {"format": 1, "kind": "delta" if len(parts) == 1 else "proxy"}
            text = json.dumps({**kind, **{name: name for name in names}, **settings})
            (folder / "adapter.json").write_text(text, encoding="utf-8")
            known = {k: v for k, v in settings.items() if k != "card"}
            naive = NaiveAdapter(tuple(self.naive(part) for part in parts), **({"bridge": "rescore"} | known))
            self._adapters[key] = (load_adapter(name, folder, device="cpu", dtype="float32"), naive)
        return self._adapters[key]


@dataclass
class Result:
    """The joined outputs of one request."""

    tokens: list[int] = field(default_factory=list)
    entries: list[TokenLogprob] = field(default_factory=list)
    prompt: tuple[TokenLogprob | None, ...] | None = None
    finish: str | None = None
    changed: int = 0
    kl: float = 0.0

    @property
    def logprobs(self) -> list[float]:
        return [entry.logprob for entry in self.entries]

    def take(self, output: StepOutput) -> None:
        if self.finish is not None:
            raise RuntimeError(f"{output.request_id} had already finished")
        self.tokens += output.token_ids
        self.entries += output.logprobs
        self.prompt = output.prompt_logprobs if output.prompt_logprobs is not None else self.prompt
        self.finish = output.finish_reason
        self.changed += output.changed
        self.kl += output.kl or 0.0


def new_sequence(request: Request) -> SequenceState:
    """A sequence that nothing steers, as the engine makes one."""
    tokens = list(request.prompt_ids)
    return SequenceState(request, SteeredRow(tokens, (), ()), tokens)


def request(
    name: str, prompt: Sequence[int], *specs: SteeringSpec | str, count: int = 10, **sampling: Any
) -> Request:
    """Greedy, with log probabilities, to the full length unless told otherwise."""
    options: dict[str, Any] = {"temperature": 0.0, "logprobs": 2, "ignore_eos": True, "max_tokens": count}
    steering = tuple(SteeringSpec(spec) if isinstance(spec, str) else spec for spec in specs)
    return Request(name, tuple(prompt), SamplingParams(**(options | sampling)), steering)


def drain(engine: Engine, results: dict[str, Result], limit: int = 3000) -> dict[str, Result]:
    """Step until there is no work left."""
    while engine.has_work:
        limit -= 1
        if limit < 0:
            raise RuntimeError("the engine does not come to an end")
        for output in engine.step():
            results.setdefault(output.request_id, Result()).take(output)
    return results


def run(engine: Engine, requests: Iterable[Request]) -> dict[str, Result]:
    """Add all requests at once and step to the end."""
    for one in requests:
        engine.add_request(one)
    return drain(engine, {})


def run_alone(engine: Engine, one: Request) -> Result:
    return run(engine, [one])[one.request_id]


def assert_close(got: Sequence[float], expected: Sequence[float], tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(
        torch.tensor(got, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        atol=tolerance,
        rtol=0.0,
    )
