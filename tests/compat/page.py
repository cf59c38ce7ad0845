"""Writes `docs/compatibility.md`: `python -m tests.compat.page`. The tests here run every row of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tests.compat.chat import MESSAGES, ROUTES
from tests.compat.feature import Feature
from tests.compat.forms import FORMS, TOOLS
from tests.compat.sampling import SAMPLING

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
TABLE: dict[str, list[Feature]] = {
    "Sampling, stopping and tokens": SAMPLING,
    "The form of the answer": FORMS,
    "Calls of functions": TOOLS,
    "Messages and chat templates": MESSAGES,
    "Routes": ROUTES,
}
HEAD = """# What other servers' clients can send

*Generated from `tests/compat/` by `make docs`; manual changes are lost.* Each row is a request that
`tests/compat/test_compatibility.py` sends, steered, and whose reply it checks. The last column says what happens: it is
served, or it is a 400 that names the field, on purpose. The second column has the servers to which clients send it. The
rows run over an engine without a model: what a grammar, a bias or a cut does to a model's tokens is tested elsewhere.
"""


def page() -> str:
    """The whole page."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield HEAD
    for title, features in TABLE.items():
        yield f"## {title}\n"
        yield "| feature | sent to | here |"
        yield "| --- | --- | --- |"
        for feature in features:
            here = f"refused: {feature.refused}" if feature.refused else "served"
            yield f"| {feature.name} | {feature.peers} | {here} |"
        yield ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
