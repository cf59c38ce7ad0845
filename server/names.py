"""Names of bases and adapters, in requests and as labels of metrics, and the version's."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

NONE = "none"
"""The label of requests that no adapter steers."""

SEVERAL = "several"
"""The label of requests that several adapters steer together."""

NAME_PATTERN = "[A-Za-z0-9][A-Za-z0-9._-]*"
MAX_NAME = 64


def adapter_label(adapters: Iterable[str]) -> str:
    """The label for the adapters of a request: a name, `NONE` or `SEVERAL`, so that combinations make no new labels."""
    names = set(adapters)
    return SEVERAL if len(names) > 1 else next(iter(names), NONE)


def installed_version() -> str:
    """The version of the package `trimtab`; "unknown" where it is not installed."""
    try:
        return version("trimtab")
    except PackageNotFoundError:
        return "unknown"


def check_name(name: str) -> str:
    """Returns `name` unchanged; raises ValueError where it cannot name a base or an adapter."""
    # The pattern has no colon, which separates base and adapter in `model`.
    if not re.fullmatch(NAME_PATTERN, name) or len(name) > MAX_NAME or name in (NONE, SEVERAL):
        raise ValueError(
            f"{name[:100]!r} cannot be a name: at most {MAX_NAME} letters, digits, '.', '_' and '-', "
            f"and neither {NONE!r} nor {SEVERAL!r}"
        )
    return name
