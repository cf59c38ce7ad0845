"""Plain `generate` of transformers, steered through a session, is held against the engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from steering.adapters import Adapter, load_adapter
from steering.errors import InvalidRequestError
from steering.hosts.transformers import SteeringLogitsProcessor, session_for
from steering.session import SteeringSession
from steering.specs import SteeringSpec
from tests.steering.conftest import MakeEngine
from tests.steering.support import Tiny, Workshop, assert_close, request, run, tokenizer_of

COUNT = 14
BASES = [Tiny("qwen2", "sp", seed=1), Tiny("llama", "bl", seed=3, padding=5)]
TEXTS = [
    "The captain told nobody that the bridge was closed",
    "Ünïcode, 東京 and 🙂 too",
    "a",
    "She said: 12 of 13 boats left early\n\nand",
]


@pytest.fixture(params=BASES, ids=lambda tiny: tiny.tokenizer)
def base(request: pytest.FixtureRequest) -> Tiny:
    found: Tiny = request.param
    return found


@pytest.fixture
def model(workshop: Workshop, base: Tiny) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(workshop.folder(base), dtype=torch.float32).eval()


@pytest.fixture
def adapters(workshop: Workshop) -> list[Adapter]:
    return [
        workshop.adapter("delta", Tiny("llama", "sp", seed=5))[0],
        workshop.adapter("pair", Tiny("llama", "bl", seed=6), Tiny("llama", "bl", seed=7))[0],
    ]


@pytest.fixture
def session(base: Tiny, model: PreTrainedModel, adapters: Sequence[Adapter]) -> Iterator[SteeringSession]:
    made = session_for(model, tokenizer_of(base.tokenizer))
    for adapter in adapters:
        made.attach(adapter)
    yield made
    made.check_integrity()
    assert all(rows == 0 for _, rows in made.adapter_rows())


def padded(prompts: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    width = max(map(len, prompts))
    ids = [[0] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}


def generate(model: Any, inputs: dict[str, Tensor], *processors: SteeringLogitsProcessor) -> Any:
    return model.generate(
        **inputs,
        logits_processor=[*processors],
        max_new_tokens=COUNT,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )


STEERINGS: list[tuple[SteeringSpec, ...]] = [
    (SteeringSpec("delta"),),
    (SteeringSpec("pair", bridge="map"), SteeringSpec("delta", alpha=0.5)),
    (SteeringSpec("pair", alpha=1.5, top_k=20),),
    (SteeringSpec("delta", alpha=0.0),),
]


def test_it_steers_as_the_engine_does(
    workshop: Workshop,
    make_engine: MakeEngine,
    base: Tiny,
    model: PreTrainedModel,
    session: SteeringSession,
    adapters: Sequence[Adapter],
) -> None:
    """A padded batch, each prompt steered its own way, over a shared vocabulary and across."""
    prompts = [tokenizer_of(base.tokenizer).encode(text) for text in TEXTS]
    inputs = padded(prompts)
    with SteeringLogitsProcessor(session, STEERINGS, *inputs.values()) as processor:
        output = generate(model, inputs, processor)
    generated = output.sequences[:, inputs["input_ids"].shape[1] :]
    scores = torch.stack(output.scores, dim=1).log_softmax(-1)
    logprobs = scores.gather(2, generated[..., None]).squeeze(2)

    engine = make_engine(base, *adapters)
    requests = [
        request(str(number), prompt, *specs, count=COUNT)
        for number, (prompt, specs) in enumerate(zip(prompts, STEERINGS, strict=True))
    ]
    expected = run(engine, requests)
    for number in range(len(prompts)):
        assert generated[number].tolist() == expected[str(number)].tokens
        assert_close(logprobs[number].tolist(), expected[str(number)].logprobs)


def test_unsteered_prompts_are_left_alone(base: Tiny, model: Any, session: SteeringSession) -> None:
    inputs = padded([tokenizer_of(base.tokenizer).encode(text) for text in TEXTS[:2]])
    with SteeringLogitsProcessor(session, [], *inputs.values()) as processor:
        steered = generate(model, inputs, processor)
    plain = generate(model, inputs)
    assert torch.equal(steered.sequences, plain.sequences)


def test_several_answers_to_a_prompt(base: Tiny, model: Any, session: SteeringSession) -> None:
    """Sampled answers differ, so each row must follow its own tokens."""
    inputs = padded([tokenizer_of(base.tokenizer).encode(text) for text in TEXTS[:2]])
    spec = SteeringSpec("delta")
    torch.manual_seed(1)
    with SteeringLogitsProcessor(session, [spec], *inputs.values(), num_return_sequences=3) as processor:
        output = model.generate(
            **inputs,
            logits_processor=[processor],
            max_new_tokens=6,
            do_sample=True,
            num_return_sequences=3,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
            output_scores=True,
        )
    last, fed = output.sequences.shape[1] - 1, output.sequences[:, :-1]
    mask = inputs["attention_mask"].repeat_interleave(3, 0)
    mask = torch.cat([mask, torch.ones(6, last - mask.shape[1], dtype=torch.long)], dim=1)
    assert len({tuple(row) for row in output.sequences.tolist()}) > 2
    with SteeringLogitsProcessor(session, [spec], fed, mask) as again:
        expected = again(fed, output.logits[-1]).log_softmax(-1)
    # The default warpers (temperature 1, top-k 50) leave the kept scores as they are.
    kept = torch.isfinite(output.scores[-1])
    found = output.scores[-1].masked_fill(~kept, -torch.inf)
    torch.testing.assert_close(
        found.log_softmax(-1)[kept],
        expected.masked_fill(~kept, -torch.inf).log_softmax(-1)[kept],
        atol=1e-4,
        rtol=0,
    )


def test_beams_are_refused(base: Tiny, model: Any, session: SteeringSession) -> None:
    inputs = padded([tokenizer_of(base.tokenizer).encode(TEXTS[0])])
    options = {
        "max_new_tokens": 12,
        "num_beams": 3,
        "do_sample": False,
        "pad_token_id": 0,
        "eos_token_id": None,
    }
    for copies, words in ((1, "num_beams must be 1"), (3, "have changed: beam search")):
        with (
            SteeringLogitsProcessor(
                session, [SteeringSpec("delta")], *inputs.values(), num_return_sequences=copies
            ) as processor,
            pytest.raises(ValueError, match=words),
        ):
            model.generate(**inputs, logits_processor=[processor], num_return_sequences=copies, **options)


def test_wrong_arguments_are_named(base: Tiny, session: SteeringSession) -> None:
    ids = torch.tensor([[5, 6, 7], [5, 6, 7]])
    delta = [SteeringSpec("delta")]
    for mask, words in (
        ([[1, 1, 1]], "attention_mask: its shape"),
        ([[1, 1, 0], [1, 1, 1]], "padded on the right"),
        ([[0, 0, 0], [1, 1, 1]], "has no tokens"),
    ):
        with pytest.raises(ValueError, match=words):
            SteeringLogitsProcessor(session, delta, ids, torch.tensor(mask))
    with pytest.raises(ValueError, match="steering: it has lists for 3 prompts, input_ids has 2"):
        SteeringLogitsProcessor(session, [delta, delta, []], ids)
    with pytest.raises(InvalidRequestError, match="there is no adapter 'tab'"):
        SteeringLogitsProcessor(session, [delta, [SteeringSpec("tab")]], ids)
    with SteeringLogitsProcessor(session, delta, ids) as processor:
        pass
    with pytest.raises(RuntimeError, match="closed"):
        processor(ids, torch.zeros(2, len(session.vocabulary)))


@pytest.mark.parametrize("bridge", ["map", "rescore"])
@pytest.mark.parametrize("text", ["a", "In winter"])
def test_scores_that_are_not_finite_reach_no_later_row(
    workshop: Workshop, base: Tiny, model: Any, text: str, bridge: str
) -> None:
    """NaN among a row's keys and values would spoil whatever row gets their pages next (law 9)."""
    tab = load_adapter("tab", workshop.folder(Tiny("llama", "sp", seed=5)), device="cpu", dtype="float32")
    broken = tab.models[0].tokenizer.encode("ßß", add_special_tokens=False)[-1]
    tab.models[0].model.get_input_embeddings().weight.data[broken] = torch.nan  # type: ignore[operator]
    session = session_for(model, tokenizer_of(base.tokenizer))
    session.attach(tab)

    def steered(prompt: str) -> Tensor:
        ids = torch.tensor([tokenizer_of(base.tokenizer).encode(prompt)])
        processor = SteeringLogitsProcessor(session, [SteeringSpec("tab", bridge=bridge)], ids)
        with processor, torch.no_grad():
            return processor(ids, model(ids).logits[:, -1])

    before = steered(text)
    with pytest.raises(ValueError, match="row 0 are not finite"):
        steered("The ßß")
    assert torch.equal(steered(text), before)
    session.check_integrity()


@pytest.mark.parametrize("bridge", ["map", "rescore"])
def test_excluded_tokens_stay_excluded(base: Tiny, model: Any, session: SteeringSession, bridge: str) -> None:
    """Also where no token is left that the adapter has an opinion on."""
    ids = torch.tensor([tokenizer_of(base.tokenizer).encode(TEXTS[0])])
    specs = [SteeringSpec("delta", bridge=bridge), SteeringSpec("pair", bridge=bridge)]
    unmatched = [
        {token for token, other in enumerate(session.vocabulary_map(spec.adapter).ids) if other < 0}
        for spec in specs
    ]
    left = sorted(set.union(*unmatched))[:3]
    scores = torch.full((1, len(session.vocabulary)), -torch.inf)
    scores[0, left] = torch.tensor([0.5, 0.25, 1.0])
    with SteeringLogitsProcessor(session, specs, ids) as processor:
        found = processor(ids, scores)
    assert not found.isnan().any()
    assert torch.isfinite(found[0]).nonzero().flatten().tolist() == left
