"""From a request to its plan: tokenizes the prompt and checks every value against the base (law 9)."""

from __future__ import annotations

from server.errors import ApiError, bad_request
from server.intake.answer_form import asked_form
from server.intake.chat_options import chat_options
from server.intake.chat_template import template_text
from server.intake.encoding import bad_sequences, encode_messages, encode_text, truncated
from server.intake.plan import Plan, Prompt
from server.intake.sampling import check_ids, sampling_params
from server.protocol.chat import ChatRequest
from server.protocol.completions import CompletionRequest
from server.protocol.generation import GenerationFields
from server.served_base import ServedBase
from server.service import Service
from server.tools.tool_use import ToolUse, offered_tools, plan_tools
from steering.engine.constraint import Constraint
from steering.engine.request import SamplingParams
from steering.specs import SteeringSpec

DEFAULT_MAX_TOKENS = 16
"""`max_tokens` of a completion that does not give it, as OpenAI's."""


async def plan_completion(service: Service, body: CompletionRequest, client: str = "") -> Plan:
    """Checks and tokenizes a completion request of `client`; raises `ApiError`."""
    base, steering = service.choose(body.model, body.steering)
    # A null that the client wrote is not the default here: vLLM's and llama.cpp's clients mean all that there is.
    wanted = body.max_tokens if "max_tokens" in body.model_fields_set else DEFAULT_MAX_TOKENS
    width = body.best_of or body.n or 1
    _check_completion(body, width)

    def encode() -> tuple[Prompt, ...]:
        return tuple(_prompt(base, item, body.truncate_prompt_tokens) for item in body.prompt)

    prompts = await base.off_loop(encode)
    room = min(_room(base, prompt, wanted, "prompt") for prompt in prompts)
    max_tokens = room if wanted in (None, -1) else min(wanted or 0, room)
    scored = [count for count in (body.prompt_logprobs,) if count is not None]
    if body.echo and (body.logprobs is not None or max_tokens == 0):
        scored.append(body.logprobs or 0)
    # `best_of` compares answers by their logprobs, even where the client does not ask for any.
    ranked = body.logprobs is None and width > (body.n or 1)
    sampling = sampling_params(
        base,
        body,
        max_tokens=max_tokens,
        logprobs=0 if ranked else body.logprobs,
        prompt_logprobs=max(scored, default=None),
        bad_sequences=await _bad_sequences(base, body),
    )
    return await _plan(
        base,
        body,
        client,
        prompts,
        sampling,
        steering,
        width=width,
        logprobs=body.logprobs is not None,
        echo=bool(body.echo),
    )


async def plan_chat(service: Service, body: ChatRequest, client: str = "") -> Plan:
    """Checks and tokenizes a chat request of `client`; raises `ApiError`."""
    base, steering = service.choose(body.model, body.steering)
    _check_chat(body)
    offered = offered_tools(body)
    options = chat_options(base, body)
    conversation = await base.off_loop(
        lambda: encode_messages(base, body.messages, tools=offered, options=options)
    )
    tools = plan_tools(body, offered, template_text(base))
    given = body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens
    prompt = Prompt(truncated(base, conversation.ids, body.truncate_prompt_tokens))
    room = _room(base, prompt, given, "messages")
    max_tokens = room if given in (None, -1) else min(given or 0, room)
    top = body.asked_top if body.wants_logprobs else None
    sampling = sampling_params(
        base,
        body,
        max_tokens=max_tokens,
        logprobs=top,
        prompt_logprobs=body.prompt_logprobs,
        bad_sequences=await _bad_sequences(base, body),
    )
    return await _plan(
        base,
        body,
        client,
        (prompt,),
        sampling,
        steering,
        width=body.n or 1,
        logprobs=body.wants_logprobs,
        tools=tools,
        thinking=conversation.thinking if service.config.reasoning_parser else None,
        opening=_last_text(body) if body.echo else "",
    )


async def _plan(
    base: ServedBase,
    body: GenerationFields,
    client: str,
    prompts: tuple[Prompt, ...],
    sampling: SamplingParams,
    steering: tuple[SteeringSpec, ...],
    *,
    width: int,
    logprobs: bool,
    echo: bool = False,
    tools: ToolUse | None = None,
    thinking: bool | None = None,
    opening: str = "",
) -> Plan:
    """The plan, with what both kinds of request have."""
    constraint, field = await _constraint(base, body, tools, client)
    if constraint is not None and body.allowed_token_ids:
        raise bad_request(f"`allowed_token_ids` and `{field}` cannot both be had.", "allowed_token_ids")
    if constraint is not None and sampling.max_tokens == 0:
        raise bad_request(f"`{field}` needs `max_tokens` of at least 1.", field)
    return Plan(
        base,
        prompts,
        n=body.n or 1,
        width=width,
        sampling=sampling,
        steering=steering,
        stops=tuple(body.stop or ()),
        include_stop=bool(body.include_stop_str_in_output),
        show_specials=body.skip_special_tokens is False,
        echo=echo,
        logprobs=logprobs,
        constraint=constraint,
        constraint_field=field,
        thinking=thinking,
        opening=opening,
        tools=tools,
    )


async def _constraint(
    base: ServedBase, body: GenerationFields, tools: ToolUse | None, client: str
) -> tuple[Constraint | None, str]:
    """The grammar of the answer, and the field that it comes from: calls where they are demanded, else the form that
    the answer must have."""
    if tools is not None and tools.demanded:
        rules = f"start: calls\n{tools.rules(base.vocabulary)}"
        return await base.grammars.compile(rules, "tools", client), "tools"
    # Off the event loop: a grammar of another dialect is translated first.
    asked = await base.off_loop(lambda: asked_form(body))
    if asked is None:
        return (None, "") if tools is None else (await _free_text(base, tools, client), "tools")
    # With tools, the model chooses between a call and an answer of this form.
    rules = "start: answer\n" if tools is None else f"start: answer | calls\n{tools.rules(base.vocabulary)}"
    return await base.grammars.compile(f"{rules}{asked.rule}", asked.field, client), asked.field


async def _free_text(base: ServedBase, tools: ToolUse, client: str) -> Constraint:
    """The grammar of text in which calls are held from their opening marks on.

    Where a schema cannot be compiled, the arguments are any objects, unless a function is `strict`.
    """
    ends = base.engine.base.eos_token_ids
    try:
        rules = tools.free_rules(base.vocabulary, ends)
        return await base.grammars.compile(f"start: free\n{rules}", "tools", client)
    except ApiError as error:
        if error.status != 400 or tools.strict:
            raise
    rules = tools.free_rules(base.vocabulary, ends, loose=True)
    return await base.grammars.compile(f"start: free\n{rules}", "tools", client)


def _prompt(base: ServedBase, item: str | list[int], most: int | None) -> Prompt:
    """A prompt's tokens; a text keeps its own words for an echo, unless it is truncated."""
    ids = encode_text(base, item) if isinstance(item, str) else item
    kept = truncated(base, ids, most)
    return Prompt(kept, item if isinstance(item, str) and len(kept) == len(ids) else None)


async def _bad_sequences(base: ServedBase, body: GenerationFields) -> tuple[tuple[int, ...], ...]:
    words = body.bad_words
    return await base.off_loop(lambda: bad_sequences(base, words)) if words else ()


def _check_completion(body: CompletionRequest, width: int) -> None:
    _check_fields(body)
    n = body.n or 1
    if width < n:
        raise bad_request("`best_of` must not be less than `n`.", "best_of")
    if body.stream and width > n:
        raise bad_request("`best_of` cannot be streamed.", "best_of")
    if body.steering_details and body.logprobs is None:
        raise bad_request("`steering_details` needs `logprobs`.", "steering_details")
    if body.max_tokens == 0 and not body.echo:
        raise bad_request("`max_tokens` may be 0 only with `echo`.", "max_tokens")


def _check_chat(body: ChatRequest) -> None:
    _check_fields(body)
    if body.top_logprobs and not body.wants_logprobs:
        raise bad_request("`top_logprobs` needs `logprobs`.", "top_logprobs")
    if body.steering_details and not body.wants_logprobs:
        raise bad_request("`steering_details` needs `logprobs`.", "steering_details")
    if None not in (both := (body.max_tokens, body.max_completion_tokens)) and len(set(both)) > 1:
        raise bad_request(
            "`max_tokens` and `max_completion_tokens` are one setting; they differ.", "max_tokens"
        )
    for field in ("max_tokens", "max_completion_tokens"):
        if getattr(body, field) == 0:
            raise bad_request(f"`{field}` must be at least 1, or -1 for all that there is.", field)


def _last_text(body: ChatRequest) -> str:
    last = body.messages[-1]
    return (last.content or "") if last.role == "assistant" else ""


def _check_fields(body: GenerationFields) -> None:
    if body.stream and body.prompt_logprobs is not None:
        raise bad_request("`prompt_logprobs` cannot be streamed.", "prompt_logprobs")
    options = body.stream_options
    if options is not None and not body.stream and any(options.model_dump().values()):
        raise bad_request("`stream_options` needs `stream`.", "stream_options")


def _room(base: ServedBase, prompt: Prompt, max_tokens: int | None, field: str) -> int:
    """The most tokens that can follow a prompt.

    Raises a 400 for a prompt without tokens, of unknown tokens, or that leaves no room; with `max_tokens` of 0 it needs
    none.
    """
    limit, length = base.max_model_len, len(prompt.ids)
    if length == 0:
        raise bad_request(f"`{field}` has no tokens; at least one is needed.", field)
    if length + (max_tokens != 0) > limit:
        raise bad_request(
            f"`{field}` has {length} tokens, which leaves no room within the limit of {limit} tokens "
            f"(max_model_len of {base.name!r}).",
            field,
        )
    check_ids(base, prompt.ids, field)
    return limit - length
