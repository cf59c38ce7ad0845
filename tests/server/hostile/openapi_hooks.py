"""What schemathesis needs to know beyond the OpenAPI document; it imports this by the name in SCHEMATHESIS_HOOKS."""

from __future__ import annotations

from typing import Any

import schemathesis

SERVED = ("bytes", "pieces", "bytes:steer", "pieces:lean")
MOST_TOKENS = 4


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """A drawn name is never one that is served, and few would wait for 2^31 tokens; what is no name or number stays."""
    if isinstance(body, dict):
        if isinstance(body.get("model"), str):
            body = {**body, "model": SERVED[len(body["model"]) % len(SERVED)]}
        for name in ("max_tokens", "max_completion_tokens"):
            value = body.get(name)
            if isinstance(value, int) and MOST_TOKENS < value <= 2**31:
                body = {**body, name: MOST_TOKENS}
    return body


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """It reads the adapters' names and would unload them, as the admin key lets it; the rest is to stay steered."""
    if case.method.upper() == "DELETE" and case.path_parameters.get("name") in ("steer", "lean"):
        case.path_parameters["name"] = "nobody"


@schemathesis.check
def a_refusal_names_its_field(ctx: Any, response: Any, case: Any) -> None:
    """A 400 says which field is at fault, unless the body is no JSON object at all."""
    if response.status_code == 400 and isinstance(case.body, dict) and "json" in str(case.media_type):
        error = response.json()["error"]
        assert error["param"] is not None or "not a valid JSON object" in error["message"], error


@schemathesis.check
def an_error_is_short(ctx: Any, response: Any, case: Any) -> None:
    """No error repeats more than a little of what it was sent."""
    if response.status_code >= 400:
        assert len(response.content) < 2_000, response.text[:3000]
