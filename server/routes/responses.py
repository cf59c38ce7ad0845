"""`POST /v1/responses`: OpenAI's newer form of chat."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.intake.body import read_body
from server.intake.from_responses import chat_from_responses
from server.intake.planning import plan_chat
from server.protocol.responses.request import ResponsesRequest
from server.replies.events.dialect import respond_in
from server.replies.events.responses import ResponsesDialect
from server.routes.generation import start_generation
from server.service import service_of

router = APIRouter()


@router.post("/v1/responses")
async def create_response(request: Request) -> Response:
    """Answers a conversation in the form of OpenAI's Responses, steered as `model` or `steering` says."""
    service = service_of(request)
    body = await read_body(request, ResponsesRequest, service.config)
    generation = await start_generation(request, chat_from_responses(body), 1, plan_chat)
    dialect = ResponsesDialect(body, generation)
    return await respond_in(request, generation, dialect, service.metrics, stream=bool(body.stream))
