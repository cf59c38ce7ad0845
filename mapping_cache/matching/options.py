"""The options of a vocabulary map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Method = Literal["exact", "pm-mined", "mined"]
"""How a token without an exact match is matched."""

Form = Literal["bytes", "surface"]
"""The form in which tokens are compared: the bytes they stand for, or their surfaces."""

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` while a slow method runs."""

DEFAULT_MIN_SIMILARITY = 1.0
"""Only exact and special matches get a shift, since weak matches destroy the effect of steering."""


@dataclass(frozen=True, slots=True)
class MapOptions:
    """How a map is built; `build_map` describes each option. Raises `ValueError` on a value out of range."""

    method: Method = "pm-mined"
    form: Form = "bytes"
    min_similarity: float = DEFAULT_MIN_SIMILARITY
    fallback: bool = False

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise ValueError(f"method must be one of {get_args(Method)}, not {self.method!r}")
        if self.form not in get_args(Form):
            raise ValueError(f"form must be one of {get_args(Form)}, not {self.form!r}")
        if not 0.0 <= self.min_similarity <= 1.0:
            raise ValueError(f"min_similarity must lie in 0..1, not {self.min_similarity}")
