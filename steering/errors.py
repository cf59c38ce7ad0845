"""Errors that a caller can act on. Each message names the field or file at fault."""

from __future__ import annotations


class InvalidRequestError(ValueError):
    """A request that cannot be served as it stands. `param` names the field at fault."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


class ModelLoadError(RuntimeError):
    """A model that cannot be loaded, or that does not run on paged attention."""


class AdapterLoadError(RuntimeError):
    """An adapter folder that cannot be served."""
