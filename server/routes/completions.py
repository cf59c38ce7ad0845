"""`POST /v1/completions`."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.intake.body import read_body
from server.intake.planning import plan_completion
from server.protocol.completions import Completion, CompletionChoice, CompletionLogprobs, CompletionRequest
from server.protocol.generation import Usage
from server.replies.generation import Generation
from server.replies.logprobs import completion_logprobs, prompt_entries
from server.replies.sequence_text import Delta, PlacedToken
from server.routes.generation import reply_head, respond, start_generation
from server.service import service_of

router = APIRouter()


@router.post("/v1/completions")
async def create_completion(request: Request) -> Response:
    """Completes each prompt, steered as `model` or `steering` says."""
    service = service_of(request)
    body = await read_body(request, CompletionRequest, service.config)
    sequences = len(body.prompt) * (body.best_of or body.n or 1)
    generation = await start_generation(request, body, sequences, plan_completion)
    return await respond(request, generation, _CompletionFormat(body, generation), body)


class _CompletionFormat:
    """The `AnswerFormat` of this route: a whole reply and an event have the same shape."""

    def __init__(self, body: CompletionRequest, generation: Generation) -> None:
        self._body = body
        self._vocabulary = generation.plan.base.vocabulary
        self._plan = generation.plan
        self._head = reply_head("cmpl", body, generation)
        self._begun: set[int] = set()

    def whole(self, answers: Sequence[Delta], usage: Usage) -> Completion:
        return self.chunk([self.choice(answer) for answer in answers], usage)

    def opening(self) -> tuple[CompletionChoice, ...]:
        return ()

    def choice(self, delta: Delta) -> CompletionChoice:
        body, plan = self._body, self._plan
        # Once for each answer: in a stream, in its first event.
        first = bool(body.return_token_ids) and delta.index not in self._begun
        self._begun.add(delta.index)
        return CompletionChoice(
            index=delta.index,
            token_ids=delta.token_ids if body.return_token_ids else None,
            prompt_token_ids=list(plan.prompts[delta.index // plan.n].ids) if first else None,
            prompt_logprobs=prompt_entries(self._vocabulary, delta.prompt_logprobs, body.prompt_logprobs),
            text=delta.text,
            logprobs=self._logprobs(delta.tokens),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
        )

    def chunk(self, choices: list[CompletionChoice], usage: Usage | None) -> Completion:
        head = self._head
        return Completion(
            id=head.id,
            created=head.created,
            model=head.model,
            choices=choices,
            steering=head.steering,
            system_fingerprint=head.system_fingerprint,
            usage=usage,
        )

    def _logprobs(self, tokens: Sequence[PlacedToken]) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        return completion_logprobs(
            self._vocabulary,
            tokens,
            top=self._body.logprobs,
            details=bool(self._body.steering_details),
            as_ids=bool(self._body.return_tokens_as_token_ids),
        )
