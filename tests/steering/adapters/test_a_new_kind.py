"""A kind of adapter is one file and one row. A mixture in probability space fits too."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from steering.adapters import Adapter, load_adapter
from steering.adapters.kinds import KINDS
from steering.adapters.shift import Shift
from steering.errors import AdapterLoadError, InvalidRequestError
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run, run_alone

BASE, SMALL = Tiny("qwen2", "sp", seed=1), Tiny("llama", "sp", seed=2)
PROMPT = [5, 6, 7, 8]


class MixtureShift:
    """`(1 - alpha) * p_base + alpha * p_small` (CombLM), over one vocabulary."""

    alpha_range = (0.0, 1.0)

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        return logits[0].log_softmax(-1)

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        return logits[0].log_softmax(-1) + math.log(logits[0].shape[-1])

    def weigh(self, shift: Shift, base: Tensor, alphas: Tensor) -> Shift:
        before, alpha = base.log_softmax(-1), alphas[:, None]
        small = shift.added_to(torch.zeros_like(base)).log_softmax(-1)
        return Shift(torch.logaddexp(before + torch.log1p(-alpha), small + alpha.log()) - before)


class MixtureKind:
    defaults: Mapping[str, Any] = {"small": "small"}

    def folders(self, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        return (settings["small"],)

    def rule(self, settings: Mapping[str, Any]) -> MixtureShift:
        return MixtureShift()


def save(workshop: Workshop, folder: Path, **settings: Any) -> Path:
    shutil.copytree(workshop.folder(SMALL), folder / "small")
    (folder / "adapter.json").write_text(json.dumps({"kind": "mixture", **settings}))
    return folder


@pytest.fixture
def mixture(workshop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Adapter:
    monkeypatch.setitem(KINDS, "mixture", MixtureKind())
    return load_adapter("mix", save(workshop, tmp_path / "mix", alpha=0.3), device="cpu", dtype="float32")


@pytest.mark.parametrize("alpha", [None, 0.0, 0.75])
def test_it_mixes_probabilities(
    workshop: Workshop, make_engine: MakeEngine, mixture: Adapter, alpha: float | None
) -> None:
    """Scored texts and drawn tokens, against the two models' own log probabilities."""
    share = 0.3 if alpha is None else alpha
    engine = make_engine(BASE, mixture)
    spec = SteeringSpec("mix", alpha=alpha)
    mixed = run_alone(engine, request("r", PROMPT, spec, count=8))
    text = PROMPT + mixed.tokens
    scored = run_alone(engine, request("s", text, spec, max_tokens=0, prompt_logprobs=1)).prompt
    assert scored is not None
    parts = [
        run_alone(make_engine(tiny), request("p", text, max_tokens=0, prompt_logprobs=1)).prompt
        for tiny in (BASE, SMALL)
    ]
    assert parts[0] is not None and parts[1] is not None
    expected = [
        math.log((1 - share) * math.exp(base.logprob) + share * math.exp(small.logprob))
        for base, small in zip(parts[0][1:], parts[1][1:], strict=True)
        if base is not None and small is not None
    ]
    assert_close([entry.logprob for entry in scored if entry is not None], expected)
    assert_close(mixed.logprobs, expected[len(PROMPT) - 1 :])


def test_it_shares_a_batch_with_other_kinds(
    workshop: Workshop, make_engine: MakeEngine, mixture: Adapter
) -> None:
    delta = workshop.adapter("delta", Tiny("llama", "sp", seed=4))[0]
    requests = [
        request("mixed", PROMPT, "mix"),
        request("shifted", PROMPT, "delta"),
        request("plain", PROMPT),
        request("both", PROMPT, "mix", "delta"),
    ]
    together = run(make_engine(BASE, mixture, delta), requests)
    for one in requests:
        alone = run_alone(make_engine(BASE, mixture, delta), one)
        assert together[one.request_id].tokens == alone.tokens
        assert_close(together[one.request_id].logprobs, alone.logprobs)


def test_its_own_fields_and_alphas_are_checked(
    workshop: Workshop, tmp_path: Path, make_engine: MakeEngine, mixture: Adapter
) -> None:
    for settings, words in (
        ({"alpha": 1.5}, "alpha cannot be 1.5"),
        ({"model": "."}, "unknown field 'model'"),
    ):
        folder = save(workshop, tmp_path / words, **settings)
        with pytest.raises(AdapterLoadError, match=words):
            load_adapter("mix", folder, device="cpu")
    engine = make_engine(BASE, mixture)
    with pytest.raises(InvalidRequestError, match=r"1\.5 is not a number between 0 and 1"):
        engine.add_request(request("r", PROMPT, SteeringSpec("mix", alpha=1.5)))
