"""The sections on errors and on headers."""

from __future__ import annotations

from collections.abc import Iterator

from server.documents.markdown import table
from server.documents.openapi import ERRORS, HEADERS
from server.errors import error_type


def errors_section() -> Iterator[str]:
    """The lines of the section on errors."""
    yield "## Errors\n"
    yield 'Every error is `{"error": {"message", "type", "param", "code"}}`. A message names the field and its'
    yield "limit, and repeats at most 200 characters of the request. `code` is the HTTP status as a string, because"
    yield "OpenAI's schema has a string there and typed clients refuse a number.\n"
    yield from table(
        ("code", "type", "when"),
        ((str(code), f"`{error_type(code)}`", text) for code, text in ERRORS.items()),
    )


def headers_section() -> Iterator[str]:
    """The lines of the section on headers."""
    yield "## Headers\n"
    yield from table(
        ("header", "on", "meaning"),
        (
            ("`authorization`", "requests", "`Bearer KEY`, where the server has keys."),
            ("`x-api-key`", "requests", "`KEY`, in place of `authorization`."),
            ("`content-type`", "requests", "`application/json`; a compressed body is refused."),
            (
                "`x-request-id`",
                "requests",
                "An id of the client's own: up to 128 letters, digits and `._:-`.",
            ),
            *((f"`{name}`", "replies", text) for name, text in HEADERS.items()),
        ),
    )
