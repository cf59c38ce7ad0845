"""Names of bases and adapters."""

from __future__ import annotations

import re
from collections.abc import Iterable

NONE = "none"
"""The metrics' label of what nothing steers."""

SEVERAL = "several"
"""The metrics' label of what several adapters steer together."""

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]*"
MAX_NAME = 64


def adapter_label(adapters: Iterable[str]) -> str:
    """The metrics' label for what steers a request: few values, whatever clients combine."""
    names = set(adapters)
    return SEVERAL if len(names) > 1 else next(iter(names), NONE)


def check_name(name: str) -> str:
    """`name` as it is; raises ValueError where it cannot be one."""
    # A colon separates base and adapter in `model`.
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > MAX_NAME or name in (NONE, SEVERAL):
        raise ValueError(
            f"{name[:100]!r} cannot be a name: at most {MAX_NAME} letters, digits, '.', '_' and '-', "
            f"and neither {NONE!r} nor {SEVERAL!r}"
        )
    return name
