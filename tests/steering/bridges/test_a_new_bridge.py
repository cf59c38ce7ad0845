"""A bridge is one file and one row: a toy one serves requests, adapters and prompt scores like the others."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch import Tensor

from steering.adapters.shift import Shift
from steering.bridges.map import map_bridge
from steering.bridges.table import BRIDGES
from steering.errors import AdapterLoadError, InvalidRequestError
from steering.specs import SteeringSpec
from steering.steerers.state import SteererState
from steering.steerers.steerer import Steerer
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run_alone

BASE, SMALL = Tiny("qwen2", "sp", seed=1), Tiny("llama", "bl", seed=2)
PROMPT = [5, 6, 7, 8]


def halved(
    steerer: Steerer,
    states: Sequence[SteererState],
    logits: Sequence[Tensor],
    base: Tensor,
    alphas: Tensor,
) -> Shift:
    """Half of what `map` gives."""
    whole = map_bridge(steerer, states, logits, base, alphas)
    return Shift(whole.values / 2, whole.columns)


def test_it_serves_like_the_others(
    workshop: Workshop, make_engine: MakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BRIDGES, "halved", halved)
    adapter = workshop.adapter("half", SMALL, bridge="halved", alpha=2.0)[0]
    engine = make_engine(BASE, adapter)
    halves = run_alone(engine, request("a", PROMPT, "half"))
    whole = run_alone(engine, request("b", PROMPT, SteeringSpec("half", alpha=1.0, bridge="map")))
    assert halves.tokens == whole.tokens
    assert_close(halves.logprobs, whole.logprobs)
    text = PROMPT + halves.tokens
    scored = run_alone(engine, request("c", text, "half", max_tokens=0, prompt_logprobs=0)).prompt
    assert scored is not None
    assert_close([e.logprob for e in scored[len(PROMPT) :] if e is not None], halves.logprobs)


def test_an_unknown_bridge_is_refused_with_the_names_that_there_are(
    workshop: Workshop, make_engine: MakeEngine
) -> None:
    engine = make_engine(BASE, workshop.adapter("fine", SMALL)[0])
    with pytest.raises(
        InvalidRequestError, match="'tunnel' is not a bridge; there are map, rescore"
    ) as caught:
        engine.add_request(request("a", PROMPT, SteeringSpec("fine", bridge="tunnel")))
    assert caught.value.param == "steering.bridge"
    with pytest.raises(AdapterLoadError, match="adapter 'odd': bridge: 'tunnel' is not a bridge"):
        engine.session.attach(workshop.adapter("odd", SMALL, bridge="tunnel")[0])
    assert set(engine.session.adapters()) == {"fine"}
