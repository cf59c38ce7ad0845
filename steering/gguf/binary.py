"""The binary layout of GGUF: typed values, strings and arrays, and the table of tensors.

The specification is docs/gguf.md of https://github.com/ggml-org/ggml. The `gguf` package reads the layout too, but
takes over a second for 50,000 tokens, and does not say where a truncated file ends.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)

_STRING, _ARRAY = 8, 9
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_MAX_DIMENSIONS = 4


class LayoutError(ValueError):
    """Bytes that are not GGUF, or that end too early. The message names the field."""


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """Where a tensor lies. `shape` is in torch's order; `offset` counts from the start of the tensors' data."""

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int

    @property
    def elements(self) -> int:
        """The number of its values."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Header:
    """Everything before the tensors' data, which starts at `data_start` bytes."""

    fields: dict[str, Any]
    tensors: dict[str, TensorEntry]
    data_start: int


def read_header(data: Any) -> Header:
    """Read the header of a file's bytes, any buffer. Raises LayoutError."""
    reader = _Reader(data)
    if reader.take(4, "the magic") != MAGIC:
        raise LayoutError("it does not start with 'GGUF'")
    version = reader.scalar("I", "GGUF.version")
    if version not in VERSIONS:
        raise LayoutError(f"GGUF.version is {version}; versions 2 and 3, little-endian, are supported")
    tensor_count = reader.scalar("Q", "GGUF.tensor_count")
    field_count = reader.scalar("Q", "GGUF.kv_count")
    fields: dict[str, Any] = {}
    for number in range(field_count):
        key = reader.string(f"the name of field {number}")
        fields[key] = reader.value(reader.scalar("I", key), key)
    tensors: dict[str, TensorEntry] = {}
    for number in range(tensor_count):
        entry = reader.tensor(number)
        if entry.name in tensors:
            raise LayoutError(f"{entry.name} is stored twice")
        tensors[entry.name] = entry
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 1:
        raise LayoutError(f"general.alignment cannot be {alignment!r}")
    return Header(fields, tensors, -(-reader.offset // alignment) * alignment)


class _Reader:
    """Reads values one after the other. `what` names the field for the error where the bytes end too early."""

    def __init__(self, data: Any) -> None:
        self._data = memoryview(data)
        self.offset = 0

    def take(self, count: int, what: str) -> bytes:
        end = self.offset + count
        if end > len(self._data):
            raise LayoutError(f"the file is truncated: it ends within {what}")
        part = bytes(self._data[self.offset : end])
        self.offset = end
        return part

    def scalar(self, code: str, what: str) -> Any:
        layout = struct.Struct("<" + code)
        return layout.unpack(self.take(layout.size, what))[0]

    def string(self, what: str) -> str:
        text = self.take(self.scalar("Q", what), what)
        try:
            return text.decode("utf-8")
        except UnicodeDecodeError as error:
            raise LayoutError(f"{what} is not UTF-8") from error

    def value(self, type_id: int, key: str) -> Any:
        if type_id in _SCALARS:
            return self.scalar(_SCALARS[type_id], key)
        if type_id == _STRING:
            return self.string(key)
        if type_id != _ARRAY:
            raise LayoutError(f"{key} has the unknown value type {type_id}")
        element, count = self.scalar("I", key), self.scalar("Q", key)
        if element in _SCALARS:
            layout = f"<{count}{_SCALARS[element]}"
            width = struct.calcsize("<" + _SCALARS[element])
            return list(struct.unpack(layout, self.take(count * width, key)))
        if element == _STRING:
            return [self.string(key) for _ in range(count)]
        raise LayoutError(f"{key} is an array of the unsupported type {element}")

    def tensor(self, number: int) -> TensorEntry:
        name = self.string(f"the name of tensor {number}")
        dimensions = self.scalar("I", name)
        if dimensions > _MAX_DIMENSIONS:
            raise LayoutError(f"{name} has {dimensions} dimensions; {_MAX_DIMENSIONS} are the most")
        shape = tuple(self.scalar("Q", name) for _ in range(dimensions))
        return TensorEntry(name, shape[::-1], self.scalar("I", name), self.scalar("Q", name))
