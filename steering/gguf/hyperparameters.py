"""A file's fields about the model's shape, without the architecture's name that each begins with."""

from __future__ import annotations

from typing import Any, TypeVar

from steering.gguf.file import GgufFile

Scalar = TypeVar("Scalar", int, float, str, bool)


class Hyperparameters:
    """The fields `ARCHITECTURE.*` of a file. Every method raises ModelLoadError that names the field."""

    def __init__(self, file: GgufFile) -> None:
        self.file = file

    def key(self, name: str) -> str:
        """The full name of a field."""
        return f"{self.file.architecture}.{name}"

    def require(self, name: str, kind: type[Scalar]) -> Scalar:
        """The value of a field that the file must have."""
        return self.file.require(self.key(name), kind)

    def get(self, name: str, kind: type[Scalar], default: Scalar) -> Scalar:
        """The value of a field, or `default` where the file lacks it."""
        return self.file.get(self.key(name), kind, default)

    def has(self, name: str) -> bool:
        """Whether the file has a field."""
        return self.file.has(self.key(name))

    def field(self, name: str) -> Any:
        """A field's value as it is stored; None where the file lacks it."""
        return self.file.field(self.key(name))

    def uniform(self, name: str, default: int | None = None) -> int:
        """A count that must be the same for all layers, though a file may list it for each."""
        value = self.field(name)
        if isinstance(value, list) and value:
            if len(set(value)) != 1:
                raise self.file.error(f"{self.key(name)} differs between layers, which is not supported")
            value = value[0]
        elif default is None or value is not None:
            value = self.require(name, int)
        count = default if value is None else value
        if type(count) is not int or count < 1:
            raise self.file.error(f"{self.key(name)} cannot be {count!r}")
        return count

    @property
    def head_dim(self) -> int:
        """The width of one attention head."""
        width = self.require("embedding_length", int) // self.uniform("attention.head_count")
        return self.get("attention.key_length", int, width)

    @property
    def layers(self) -> int:
        """The number of layers."""
        count = self.require("block_count", int)
        # Every layer has tensors; a damaged count would have the model built with millions of layers.
        if not 1 <= count <= len(self.file.tensor_names):
            raise self.file.error(f"{self.key('block_count')} cannot be {count}")
        return count
