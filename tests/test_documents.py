"""The documents name files and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("server", "steering", "mapping_cache", "demo", "benchmarks", "examples", "tests", "deploy", "docs")
DOCUMENTS = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for pattern in ("*.md", "docs/**/*.md", "demo/*.md", "deploy/*.md")
    for path in REPOSITORY.glob(pattern)
)
_PATH = re.compile(rf"`((?:{'|'.join(ROOMS)})/[\w./-]*?)(?:::(\w+))?`")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_file_and_test_that_a_document_names_exists(name: str) -> None:
    document = REPOSITORY / name
    text = document.read_text(encoding="utf-8")
    for path, test in _PATH.findall(text):
        file = REPOSITORY / path
        assert file.exists(), f"{name} names {path}"
        if test:
            assert test in _functions(file), f"{name} names {path}::{test}"
    for target in _LINK.findall(text):
        assert (document.parent / target).exists(), f"{name} links to {target}"


def _functions(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
