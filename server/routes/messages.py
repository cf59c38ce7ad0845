"""`POST /v1/messages` and `POST /v1/messages/count_tokens`: chat in Anthropic's form."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from server.intake.body import read_body
from server.intake.chat_options import chat_options
from server.intake.encoding import encode_messages
from server.intake.from_anthropic import chat_from_anthropic
from server.intake.planning import plan_chat
from server.protocol.anthropic.reply import TokenCount
from server.protocol.anthropic.request import CountTokensRequest, MessagesRequest
from server.replies.events.anthropic import AnthropicDialect
from server.replies.events.dialect import respond_in
from server.routes.generation import start_generation
from server.service import service_of
from server.tools.tool_use import offered_tools

router = APIRouter()


@router.post("/v1/messages")
async def create_message(request: Request) -> Response:
    """Answers a conversation in Anthropic's form, steered as `model` or `steering` says."""
    service = service_of(request)
    body = await read_body(request, MessagesRequest, service.config)
    chat = chat_from_anthropic(service.base(body.model), body)
    generation = await start_generation(request, chat, 1, plan_chat)
    dialect = AnthropicDialect(body.model, generation)
    return await respond_in(request, generation, dialect, service.metrics, stream=bool(body.stream))


@router.post("/v1/messages/count_tokens")
async def count_tokens(request: Request) -> TokenCount:
    """Counts the tokens of a conversation in Anthropic's form."""
    service = service_of(request)
    body = await read_body(request, CountTokensRequest, service.config)
    base = service.base(body.model)
    chat = chat_from_anthropic(base, body)
    tools, options = offered_tools(chat), chat_options(base, chat)
    conversation = await base.off_loop(
        lambda: encode_messages(base, chat.messages, tools=tools, options=options)
    )
    return TokenCount(input_tokens=len(conversation.ids))
