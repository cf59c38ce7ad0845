"""Steering tokenizers that do not give every text back, and steering models whose context is shorter than the text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer, normalizers
from transformers import PreTrainedTokenizerFast

from steering.adapters import load_adapter
from steering.specs import SteeringSpec
from steering.steerers.steerer import CONTEXT_RESERVE
from tests.models import save_folder, tiny_model, tokenizer_byte_level, tokenizer_sentencepiece
from tests.oracle import NaiveAdapter, NaiveModel, Oracle
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run_alone, tokenizer_of

ONE_BY_ONE = {"max_step_tokens": 1, "max_num_seqs": 1}


def without_byte_fallback() -> PreTrainedTokenizerFast:
    """It writes a run of unknown characters as one <unk>, so that one more of them adds no token."""
    parts = json.loads(tokenizer_sentencepiece().backend_tokenizer.to_str())
    parts["model"]["byte_fallback"] = False
    parts["decoder"]["decoders"] = [d for d in parts["decoder"]["decoders"] if d["type"] != "ByteFallback"]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )


def dropping_line_breaks() -> PreTrainedTokenizerFast:
    backend = tokenizer_byte_level().backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\n", "")])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def save_delta(folder: Path, tokenizer: PreTrainedTokenizerFast, context: int = 256) -> Path:
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model = tiny_model("llama", len(tokenizer), 3, special)
    model.config.max_position_embeddings = context
    return save_folder(folder, model, tokenizer)


@pytest.mark.parametrize(
    ("make", "base", "text"),
    [(without_byte_fallback, "bl", "☃☃☃ hi ☃"), (dropping_line_breaks, "sp", "ab\n\n\nc\n")],
)
@pytest.mark.parametrize("bridge", ["map", "rescore"])
def test_text_that_the_steering_tokenizer_swallows(
    workshop: Workshop,
    make_engine: MakeEngine,
    tmp_path: Path,
    make: Callable[[], PreTrainedTokenizerFast],
    base: str,
    text: str,
    bridge: str,
) -> None:
    folder = save_delta(tmp_path / "delta", make())
    engine = make_engine(Tiny("llama", base), load_adapter("delta", folder, device="cpu", dtype="float32"))
    ids = tokenizer_of(base).encode(text)
    spec = SteeringSpec("delta", bridge=bridge)
    drawn = run_alone(engine, request("r", ids, spec, count=12))
    whole = [*ids, *drawn.tokens]
    oracle = Oracle(workshop.naive(Tiny("llama", base)), NaiveAdapter((NaiveModel(folder),), bridge=bridge))
    expected = oracle.scored(whole)
    assert_close(drawn.logprobs, expected[-12:])
    scored = run_alone(engine, request("s", whole, spec, count=0, prompt_logprobs=0))
    assert scored.prompt is not None
    assert_close([entry.logprob for entry in scored.prompt if entry], expected)


@pytest.mark.parametrize("base", ["sp", "bl"])
@pytest.mark.parametrize("bridge", ["map", "rescore"])
def test_a_text_longer_than_the_steering_model_sees(
    make_engine: MakeEngine, tmp_path: Path, base: str, bridge: str
) -> None:
    """The part that it sees depends on the text alone: echo, generation and another chunking agree (law 10)."""
    folder = save_delta(tmp_path / "delta", tokenizer_byte_level(), context=40)
    adapter = load_adapter("delta", folder, device="cpu", dtype="float32")
    engine = make_engine(Tiny("llama", base), adapter)
    prompt = tokenizer_of(base).encode("The ferry left the harbour at nine and")
    spec = SteeringSpec("delta", bridge=bridge)
    drawn = run_alone(engine, request("r", prompt, spec, count=90, temperature=1.0, seed=1))
    whole = [*prompt, *drawn.tokens]
    echo = run_alone(engine, request("e", whole, spec, count=0, prompt_logprobs=0))
    assert echo.prompt is not None
    assert_close([entry.logprob for entry in echo.prompt[len(prompt) :] if entry], drawn.logprobs)
    other = make_engine(Tiny("llama", base), adapter, max_step_tokens=8, max_num_seqs=4)
    on = [run_alone(one, request("n", whole, spec, count=8)).tokens for one in (engine, other)]
    assert on[0] == on[1]


def test_a_text_that_outgrows_the_context_and_then_fits_again(
    make_engine: MakeEngine, tmp_path: Path
) -> None:
    """One more base token may make the steering tokens fewer. Scored together or one by one is the same (law 10)."""
    folder = save_delta(tmp_path / "delta", tokenizer_byte_level(), context=40)
    adapter = load_adapter("delta", folder, device="cpu", dtype="float32")
    engine, single = (make_engine(Tiny("llama", "sp"), adapter, **limits) for limits in ({}, ONE_BY_ONE))
    text = "phh nn beipgeihgn ehae nnn aiain"
    ids = tokenizer_of("sp").convert_tokens_to_ids([c.replace(" ", "\u2581") for c in text])
    history = engine.session._registry.current()["delta"].crossing.new_history()
    lengths = [len(history.tokens) for token in ids if history.push(token) is not None]
    assert max(lengths) > 40 - CONTEXT_RESERVE >= lengths[-1]
    one = request("r", ids, "delta", count=0, prompt_logprobs=0)
    together, alone = (run_alone(each, one).prompt for each in (engine, single))
    assert together is not None and alone is not None
    assert_close([e.logprob for e in together if e], [e.logprob for e in alone if e])
