"""Numbers as clients write them."""

from __future__ import annotations

from pydantic import BeforeValidator


def _whole(value: object) -> object:
    """A float without a fraction as an integer: JSON has one kind of number, and some clients write `8.0`."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


WHOLE = BeforeValidator(_whole)
"""Beside an integer's other annotations: it may be written as `8.0`."""
