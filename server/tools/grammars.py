"""The grammars that constrain answers, in llguidance's dialect of Lark, which contains JSON schemas."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mapping_cache import CanonicalVocabulary
from server.errors import bad_request, echo
from server.protocol.response_format import ResponseFormat
from steering.engine.constraint import Constraint, ConstraintCompiler, ConstraintError

_COMPILE_SECONDS = 10.0
MAX_SCHEMA_BYTES = 2**16
_WHITESPACE = "[ ]?"
"""The white space between JSON's tokens: at most one space, so that no model can fill an answer with white space."""


def json_rule(name: str, schema: Mapping[str, Any], *, strict: bool, field: str) -> str:
    """The grammar rule `name`: JSON that satisfies `schema`.

    Keywords that cannot be enforced are errors where `strict`, and are ignored otherwise. Raises a 400 that names
    `field` for a schema that is too long.
    """
    options = {"whitespace_pattern": _WHITESPACE, "lenient": not strict}
    text = json.dumps({**schema, "x-guidance": options})
    if len(text) > MAX_SCHEMA_BYTES:
        raise bad_request(f"`{field}` is longer than the limit of {MAX_SCHEMA_BYTES} bytes.", field)
    return f"{name}: %json {text}\n"


def answer_rule(response_format: ResponseFormat | None) -> str | None:
    """The grammar rule `answer` for `response_format`; None for plain text. Raises what `json_rule` raises."""
    if response_format is None or response_format.type == "text":
        return None
    wanted = response_format.json_schema
    if wanted is None:
        return json_rule("answer", {"type": "object"}, strict=True, field="response_format")
    return json_rule("answer", wanted.schema_, strict=bool(wanted.strict), field="response_format")


class GrammarCompiler:
    """Compiles grammars for one base in a thread of its own, so that neither the event loop nor the engine waits."""

    def __init__(self, name: str, vocabulary: CanonicalVocabulary, eos_token_ids: Collection[int]) -> None:
        self._vocabulary = vocabulary
        self._eos_token_ids = eos_token_ids
        self._compiler: ConstraintCompiler | None = None
        # One thread, so that a client with slow grammars delays other grammars and nothing else.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"grammar-{name}")

    async def compile(self, rules: str, field: str) -> Constraint:
        """The constraint for a grammar whose first rule is `start`; raises a 400 that names `field`."""
        compiling = asyncio.get_running_loop().run_in_executor(self._thread, self._compile, rules)
        try:
            return await asyncio.wait_for(compiling, _COMPILE_SECONDS)
        except ConstraintError as error:
            raise bad_request(f"`{field}` cannot be served: {echo(error)}", field) from None
        except TimeoutError:
            raise bad_request(
                f"`{field}` takes longer than {_COMPILE_SECONDS} seconds to compile.", field
            ) from None

    def close(self) -> None:
        """Lets the thread end."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _compile(self, rules: str) -> Constraint:
        if self._compiler is None:
            self._compiler = ConstraintCompiler(self._vocabulary, self._eos_token_ids)
        return self._compiler.compile(rules)
