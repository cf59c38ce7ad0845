"""Writes `docs/api.md` from the code: `python -m server.documents.api_document [FILE]`.

Routes and fields come from the OpenAPI document, which comes from the models that check requests; metrics come from the
registry, settings from `Config`, and the command line from the commands themselves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from fastapi import FastAPI

from server.documents.openapi import document
from server.documents.section_commands import commands_section
from server.documents.section_errors import errors_section, headers_section
from server.documents.section_metrics import metrics_section
from server.documents.section_objects import objects_section
from server.documents.section_routes import routes_section
from server.documents.section_settings import settings_section
from server.routes.routers import include_routes

HEAD = """# The HTTP interface and the command line

*Generated from the code by `make docs`; manual changes are lost.* As an OpenAPI document: `GET /openapi.json`.

Requests and replies are JSON. In a request, `null` means the same as leaving a field out,
except for `max_tokens`. Integers may be written with a point, as `8.0`. A field that a route does
not have is a 400 that names the field. Numbers in strings, NaN and infinities are refused. If a key occurs twice, the
last value counts. The name of a special token inside a text is ordinary text: special tokens come only from the chat
template or from a client that sends token ids.

**Choosing an adapter.** `"model": "BASE"` is the base, unsteered; `"model": "BASE:ADAPTER"` is steered at the
adapter's own alpha. The field `steering` names one or more adapters instead; their shifts add up. Naming adapters in
both places is a 400. The reply says which adapters and versions steered it, in its field `steering` and in the header
`x-trimtab-steering`.

**Streams.** With `"stream": true` a reply is a stream of server-sent events, each `data: OBJECT`, the last one
`data: [DONE]`. An error during a stream is an event with an `error`, and ends the stream.
"""


def page() -> str:
    """The whole page."""
    app = FastAPI()
    include_routes(app)
    made = document(app)
    parts = [
        HEAD,
        *routes_section(made),
        *objects_section(made),
        *errors_section(),
        *headers_section(),
        *metrics_section(),
        *settings_section(),
        *commands_section(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    """Write the page to the file named on the command line, by default `docs/api.md`."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[2] / "docs" / "api.md"
    target.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
