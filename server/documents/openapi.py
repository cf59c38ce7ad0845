"""The OpenAPI document: every route with its fields, replies and errors, from the models that check requests.

The server reads bodies itself, so FastAPI does not know which model belongs to which route; the table `ROUTES` says so.
A test checks that every route is in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from server.protocol.adapters import (
    AdapterList,
    LoadAdapterRequest,
    LoadedAdapter,
    LoadLoraAdapterRequest,
    UnloadedAdapter,
    UnloadLoraAdapterRequest,
)
from server.protocol.anthropic.reply import AnthropicEvent, AnthropicReply, TokenCount
from server.protocol.anthropic.request import CountTokensRequest, MessagesRequest
from server.protocol.chat import ChatChunk, ChatCompletion, ChatRequest
from server.protocol.completions import Completion, CompletionRequest
from server.protocol.failures import ErrorReply
from server.protocol.models import MapCard, MapList, ModelCard, ModelList
from server.protocol.operations import Status, Version
from server.protocol.responses.reply import ResponseEvent, ResponseReply
from server.protocol.responses.request import ResponsesRequest
from server.protocol.tokens import (
    Detokenized,
    DetokenizeRequest,
    Tokenized,
    TokenizeRequest,
    TokenizerInfo,
)
from server.replies.steering_fields import STEERING_HEADER

_SCHEMAS = "#/components/schemas/{model}"
_JSON = "application/json"
HEADERS = {
    STEERING_HEADER: "The adapters that steer the reply: `ADAPTER@VERSION*ALPHA, ...`, or `none`.",
    "x-request-id": "The request's id: the client's own if it sent a valid one, else a new one.",
    "retry-after": "Seconds to wait before trying again.",
    "www-authenticate": "The scheme of the missing key.",
}
ERRORS = {
    400: "The request cannot be served; the message names the field at fault and its limit.",
    401: "The key is missing or wrong.",
    403: "Changing adapters needs the server's admin key.",
    404: "Nothing has this name.",
    408: "The request took too long to arrive, or its reply was read too slowly.",
    409: "An adapter of this name is loaded already.",
    413: "The body, or one prompt in it, is too long.",
    415: "The body is not JSON, or it is compressed.",
    429: "The queue is full, or the client has its share of it; `retry-after` says when to try again.",
    500: "A fault of the server.",
    503: "The server is starting or draining, has too many connections or no time left, or an engine has died.",
}
_BODY = (400, 408, 413, 415)

Key = Literal["none", "api", "admin"]


@dataclass(frozen=True, slots=True)
class Described:
    """The facts of one route that FastAPI does not know: its models, errors, key and headers."""

    reply: type[BaseModel] | None
    errors: tuple[int, ...] = ()
    request: type[BaseModel] | None = None
    stream: type[BaseModel] | None = None
    key: Key = "api"
    status: int = 200
    steered: bool = False

    @property
    def ends(self) -> str:
        """How a stream ends."""
        return ", the last with `[DONE]`" if self.stream in (ChatChunk, Completion) else ""


ROUTES: dict[tuple[str, str], Described] = {
    ("POST", "/v1/completions"): Described(
        Completion, (*_BODY, 404, 429, 503), CompletionRequest, stream=Completion, steered=True
    ),
    ("POST", "/v1/chat/completions"): Described(
        ChatCompletion, (*_BODY, 404, 429, 503), ChatRequest, stream=ChatChunk, steered=True
    ),
    ("POST", "/v1/responses"): Described(
        ResponseReply, (*_BODY, 404, 429, 503), ResponsesRequest, stream=ResponseEvent, steered=True
    ),
    ("POST", "/v1/messages"): Described(
        AnthropicReply, (*_BODY, 404, 429, 503), MessagesRequest, stream=AnthropicEvent, steered=True
    ),
    ("POST", "/v1/messages/count_tokens"): Described(TokenCount, (*_BODY, 404, 429), CountTokensRequest),
    ("GET", "/v1/models"): Described(ModelList),
    ("GET", "/v1/models/{name}"): Described(ModelCard, (404,)),
    ("GET", "/v1/adapters"): Described(AdapterList),
    ("POST", "/v1/adapters"): Described(
        LoadedAdapter, (*_BODY, 403, 409, 503), LoadAdapterRequest, key="admin"
    ),
    ("DELETE", "/v1/adapters/{name}"): Described(UnloadedAdapter, (403, 404, 503), key="admin"),
    ("POST", "/v1/load_lora_adapter"): Described(
        LoadedAdapter, (*_BODY, 403, 409, 503), LoadLoraAdapterRequest, key="admin"
    ),
    ("POST", "/v1/unload_lora_adapter"): Described(
        UnloadedAdapter, (*_BODY, 403, 404, 503), UnloadLoraAdapterRequest, key="admin"
    ),
    ("GET", "/v1/maps"): Described(MapList),
    ("GET", "/v1/maps/{base_name}/{adapter_name}"): Described(MapCard, (404,)),
    ("POST", "/tokenize"): Described(Tokenized, (*_BODY, 404), TokenizeRequest),
    ("POST", "/detokenize"): Described(Detokenized, (*_BODY, 404), DetokenizeRequest),
    ("GET", "/tokenizer_info"): Described(TokenizerInfo, (404,)),
    ("GET", "/health"): Described(Status, (503,), key="none"),
    ("GET", "/ready"): Described(Status, (503,), key="none"),
    ("GET", "/version"): Described(Version, key="none"),
    ("GET", "/metrics"): Described(None),
    ("GET", "/openapi.json"): Described(None),
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI 3.1 document of `app`. Raises KeyError for a route that is not in `ROUTES`."""
    made = get_openapi(
        title="Trimtab",
        version="1",
        summary="Large language models that tiny language models steer.",
        routes=app.routes,
    )
    paths: dict[str, Any] = made["paths"]
    for path, methods in paths.items():
        for method, operation in methods.items():
            _describe(operation, ROUTES[method.upper(), path], path)
    made["components"] = {
        "schemas": _schemas(),
        "securitySchemes": {
            "key": {"type": "http", "scheme": "bearer", "description": "One of `--api-key`."},
            "adminKey": {"type": "http", "scheme": "bearer", "description": "The `--admin-key`."},
        },
    }
    return made


def _models() -> set[type[BaseModel]]:
    found: set[type[BaseModel]] = {ErrorReply}
    for described in ROUTES.values():
        found |= {
            model for model in (described.reply, described.request, described.stream) if model is not None
        }
    return found


def _schemas() -> dict[str, Any]:
    requests = {described.request for described in ROUTES.values()}
    inputs: list[tuple[type[BaseModel], Literal["validation", "serialization"]]] = [
        (model, "validation" if model in requests else "serialization")
        for model in sorted(_models(), key=lambda model: model.__name__)
    ]
    _, definitions = models_json_schema(inputs, ref_template=_SCHEMAS)
    schemas: dict[str, Any] = definitions["$defs"]
    return schemas


def _describe(operation: dict[str, Any], described: Described, path: str) -> None:
    operation["summary"] = operation.get("description", "").partition("\n")[0].rstrip(".")
    if described.key != "none":
        operation["security"] = [{"key" if described.key == "api" else "adminKey": []}]
    if described.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {_JSON: {"schema": _reference(described.request)}},
        }
    errors = {500, *described.errors, *(() if described.key == "none" else (401,))}
    # FastAPI checks query parameters, and refuses invalid ones with a 400.
    if operation.get("parameters"):
        errors.add(400)
    operation["responses"] = {
        str(described.status): _success(described, path),
        **{str(code): _failure(code) for code in sorted(errors)},
    }


def _success(described: Described, path: str) -> dict[str, Any]:
    headers = [STEERING_HEADER] if described.steered else []
    reply: dict[str, Any] = {"description": "Success.", "headers": _headers(*headers)}
    if described.reply is not None:
        reply["content"] = {_JSON: {"schema": _reference(described.reply)}}
    elif described.status != 204:
        media = CONTENT_TYPE_LATEST.partition(";")[0] if path == "/metrics" else _JSON
        reply["content"] = {media: {"schema": {"type": "string" if path == "/metrics" else "object"}}}
    if described.stream is not None:
        reply["content"]["text/event-stream"] = {
            # The schema of one event, as tools read it; OpenAPI 3.1 has no words for a stream of them.
            "schema": {
                "type": "object",
                "description": f"With `stream`: events, each with an object `{described.stream.__name__}`"
                f"{described.ends}; an error is an event, and ends the stream.",
                "properties": {"event": {"type": "string"}, "data": {"type": "string"}},
                "required": ["data"],
            }
        }
    return reply


def _failure(code: int) -> dict[str, Any]:
    headers = {401: ["www-authenticate"], 429: ["retry-after"], 503: ["retry-after"]}.get(code, [])
    return {
        "description": ERRORS[code],
        "headers": _headers(*headers),
        "content": {_JSON: {"schema": _reference(ErrorReply)}},
    }


def _headers(*names: str) -> dict[str, Any]:
    return {
        name: {"description": HEADERS[name], "required": True, "schema": {"type": "string"}} for name in names
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _SCHEMAS.format(model=model.__name__)}
