"""From a request's fields to what the engine runs: every check that a client's values need (law 9)."""

from __future__ import annotations

from server.errors import bad_request, echo
from server.intake.conversation import chat_template, encode_messages, encode_text
from server.intake.plan import Plan, Prompt
from server.protocol.chat import ChatRequest
from server.protocol.common import GenerationFields
from server.protocol.completions import CompletionRequest
from server.served_base import ServedBase
from server.service import Service
from server.tools.grammars import answer_rule
from server.tools.use import ToolUse, offered_tools, plan_tools
from steering.engine.constraint import Constraint
from steering.types import SamplingParams

DEFAULT_MAX_TOKENS = 16
_GREEDY_BELOW = 1e-5
"""A temperature below this would only overflow the scores that it divides."""


async def plan_completion(service: Service, body: CompletionRequest) -> Plan:
    """Checks and tokenizes a completion request; raises `ApiError`."""
    base, steering = service.choose(body.model, body.steering)
    _check_fields(body)
    echoes, n = bool(body.echo), body.n or 1
    width = body.best_of or n
    if width < n:
        raise bad_request("`best_of` must not be less than `n`.", "best_of")
    if body.stream and width > n:
        raise bad_request("`best_of` cannot be streamed.", "best_of")
    if body.steering_details and body.logprobs is None:
        raise bad_request("`steering_details` needs `logprobs`.", "steering_details")
    max_tokens = DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens
    if max_tokens == 0 and not echoes:
        raise bad_request("`max_tokens` may be 0 only with `echo`.", "max_tokens")

    def encode() -> tuple[Prompt, ...]:
        return tuple(
            Prompt(tuple(encode_text(base, item)), item) if isinstance(item, str) else Prompt(tuple(item))
            for item in body.prompt
        )

    prompts = await base.off_loop(encode)
    for prompt in prompts:
        _check_prompt(base, prompt, max_tokens, "prompt", "max_tokens")
    scoring = echoes and (body.logprobs is not None or max_tokens == 0)
    # The best of several is told by their logprobs, whether or not the client wants to see them.
    logprobs = 0 if body.logprobs is None and width > n else body.logprobs
    sampling = _sampling(base, body, max_tokens, logprobs, (body.logprobs or 0) if scoring else None)
    constraint = await _constraint(base, body, None)
    if constraint is not None and max_tokens == 0:
        raise bad_request("`response_format` needs `max_tokens` of at least 1.", "response_format")
    return Plan(
        base,
        prompts,
        n,
        width,
        sampling,
        steering,
        stops=tuple(body.stop or ()),
        include_stop=bool(body.include_stop_str_in_output),
        echo=echoes,
        logprobs=body.logprobs is not None,
        constraint=constraint,
    )


async def plan_chat(service: Service, body: ChatRequest) -> Plan:
    """Checks and tokenizes a chat request; raises `ApiError`."""
    base, steering = service.choose(body.model, body.steering)
    _check_chat(body)
    offered = offered_tools(body)
    ids = await base.off_loop(lambda: encode_messages(base, body.messages, tools=offered))
    tools = plan_tools(body, offered, chat_template(base))
    given = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    max_tokens = max(1, base.max_model_len - len(ids)) if given is None else given
    field = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    prompt = Prompt(tuple(ids))
    _check_prompt(base, prompt, max_tokens, "messages", field)
    sampling = _sampling(base, body, max_tokens, (body.top_logprobs or 0) if body.logprobs else None, None)
    n = body.n or 1
    return Plan(
        base,
        (prompt,),
        n,
        n,
        sampling,
        steering,
        stops=tuple(body.stop or ()),
        include_stop=bool(body.include_stop_str_in_output),
        logprobs=bool(body.logprobs),
        constraint=await _constraint(base, body, tools),
        tools=tools,
    )


async def _constraint(base: ServedBase, body: GenerationFields, tools: ToolUse | None) -> Constraint | None:
    """The grammar that the answer must follow: calls where they are demanded, the form where one is asked for."""
    answer = answer_rule(body.response_format)
    if tools is not None and tools.demanded:
        if answer is not None:
            raise bad_request("`response_format` and a demanded call cannot both be had.", "response_format")
        return await base.grammars.compile(f"start: calls\n{tools.rules(base.vocabulary)}", "tools")
    if answer is None:
        return None
    if tools is None:
        return await base.grammars.compile(f"start: answer\n{answer}", "response_format")
    # The model chooses: a call, or an answer of this form.
    rules = f"start: answer | calls\n{answer}{tools.rules(base.vocabulary)}"
    return await base.grammars.compile(rules, "response_format")


def _check_chat(body: ChatRequest) -> None:
    _check_fields(body)
    if body.top_logprobs is not None and not body.logprobs:
        raise bad_request("`top_logprobs` needs `logprobs`.", "top_logprobs")
    if body.steering_details and not body.logprobs:
        raise bad_request("`steering_details` needs `logprobs`.", "steering_details")
    if body.max_tokens is not None and body.max_completion_tokens is not None:
        raise bad_request("`max_tokens` and `max_completion_tokens` are one setting; give one.", "max_tokens")
    if body.max_tokens == 0:
        raise bad_request("`max_tokens` must be at least 1.", "max_tokens")


def _check_fields(body: GenerationFields) -> None:
    if body.stream_options is not None and not body.stream:
        raise bad_request("`stream_options` needs `stream`.", "stream_options")


def _check_prompt(base: ServedBase, prompt: Prompt, max_tokens: int, field: str, budget_field: str) -> None:
    limit, length = base.max_model_len, len(prompt.ids)
    if length == 0:
        raise bad_request(f"`{field}` has no tokens; at least one is needed.", field)
    if length + min(1, max_tokens) > limit:
        raise bad_request(
            f"`{field}` has {length} tokens, which leaves no room within the limit of {limit} tokens "
            f"(max_model_len of {base.name!r}).",
            field,
        )
    if length + max_tokens > limit:
        raise bad_request(
            f"`{budget_field}` is {max_tokens} and the prompt has {length} tokens; together they may not exceed "
            f"the limit of {limit} tokens (max_model_len of {base.name!r}).",
            budget_field,
        )
    _check_ids(base, prompt.ids, field)


def _check_ids(base: ServedBase, ids: tuple[int, ...], field: str) -> None:
    size = base.vocab_size
    wrong = next((token_id for token_id in ids if not 0 <= token_id < size), None)
    if wrong is not None:
        raise bad_request(f"`{field}` has the token id {echo(wrong)}; ids go from 0 to {size - 1}.", field)


def _sampling(
    base: ServedBase,
    body: GenerationFields,
    max_tokens: int,
    logprobs: int | None,
    prompt_logprobs: int | None,
) -> SamplingParams:
    if (body.min_tokens or 0) > max_tokens:
        raise bad_request(f"`min_tokens` may not exceed the {max_tokens} of `max_tokens`.", "min_tokens")
    _check_ids(base, tuple(body.stop_token_ids or ()), "stop_token_ids")
    _check_ids(base, tuple(body.logit_bias or ()), "logit_bias")
    temperature = _or(body.temperature, 1.0)
    return SamplingParams(
        max_tokens=max_tokens,
        min_tokens=body.min_tokens or 0,
        temperature=temperature if temperature >= _GREEDY_BELOW else 0.0,
        top_p=_or(body.top_p, 1.0),
        top_k=max(0, body.top_k or 0),
        min_p=_or(body.min_p, 0.0),
        seed=body.seed,
        stop_token_ids=frozenset(body.stop_token_ids or ()),
        ignore_eos=bool(body.ignore_eos),
        presence_penalty=_or(body.presence_penalty, 0.0),
        frequency_penalty=_or(body.frequency_penalty, 0.0),
        repetition_penalty=_or(body.repetition_penalty, 1.0),
        logit_bias=tuple(sorted((body.logit_bias or {}).items())),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
