"""Hooks for schemathesis, which imports this module by the name in SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any

import schemathesis

SERVED = ("bytes", "pieces", "bytes:steer", "pieces:lean")
MOST_TOKENS = 4


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Puts a served model in place of a random name, and limits the tokens; values of other types stay.

    A random name is never served, and an answer of up to 2^31 tokens takes too long.
    """
    if isinstance(body, dict):
        if isinstance(body.get("model"), str):
            body = {**body, "model": SERVED[len(body["model"]) % len(SERVED)]}
        for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
            value = body.get(name)
            if isinstance(value, int) and MOST_TOKENS < value <= 2**31:
                body = {**body, name: MOST_TOKENS}
        if body.get("lora_name") in ("steer", "lean"):
            body = {**body, "lora_name": "nobody"}
    return body


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Protects the two adapters: schemathesis finds their names and has the admin key to unload them."""
    if case.method.upper() == "DELETE" and case.path_parameters.get("name") in ("steer", "lean"):
        case.path_parameters["name"] = "nobody"


@schemathesis.check
def a_refusal_names_its_field(ctx: Any, response: Any, case: Any) -> None:
    """A 400 names the field at fault, unless the body is not a JSON object."""
    if response.status_code == 400 and isinstance(case.body, dict) and "json" in str(case.media_type):
        error = response.json()["error"]
        assert error["param"] is not None or "not a valid JSON object" in error["message"], error


@schemathesis.check
def an_error_is_short(ctx: Any, response: Any, case: Any) -> None:
    """An error repeats little of the request."""
    if response.status_code >= 400:
        assert len(response.content) < 2_000, response.text[:3000]
