"""An open GGUF file: its fields with their types checked, and its tensors as floating point numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from steering.errors import ModelLoadError
from steering.gguf.binary import LayoutError, TensorEntry, read_header
from steering.gguf.location import gguf_file

Scalar = TypeVar("Scalar", int, float, str, bool)

_F32 = 0


class GgufFile:
    """A GGUF file, mapped into memory: a tensor's bytes are read when the tensor is.

    Every method raises ModelLoadError that names the file and the field or tensor at fault.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._dequantize = _dequantizer(path)
        try:
            self._data = np.memmap(path, dtype=np.uint8, mode="r")
            self._header = read_header(self._data)
        except LayoutError as error:
            raise self.error(str(error)) from error
        except (OSError, ValueError) as error:  # numpy cannot map an empty file
            raise self.error(f"cannot be read: {error}") from error
        self.architecture = self.require("general.architecture", str)

    def error(self, message: str) -> ModelLoadError:
        """An error whose message begins with the file."""
        return ModelLoadError(f"{self.path}: {message}")

    @property
    def tensor_names(self) -> frozenset[str]:
        """The names of all tensors."""
        return frozenset(self._header.tensors)

    @property
    def keeps_float32(self) -> bool:
        """Whether every tensor is stored in float32."""
        return all(entry.type_id == _F32 for entry in self._header.tensors.values())

    def require(self, key: str, kind: type[Scalar]) -> Scalar:
        """The value of a field that the file must have."""
        return _checked(self, key, self._value(key), kind)

    def get(self, key: str, kind: type[Scalar], default: Scalar) -> Scalar:
        """The value of a field, or `default` where the file lacks it."""
        return _checked(self, key, self._value(key), kind) if self.has(key) else default

    def has(self, key: str) -> bool:
        """Whether the file has a field."""
        return key in self._header.fields

    def sequence(self, key: str, kind: type[Scalar]) -> Sequence[Scalar]:
        """The values of an array that the file must have, all of one type."""
        values = self._value(key)
        if not isinstance(values, list) or any(type(value) is not kind for value in values):
            raise self.error(f"{key} is not an array of type {kind.__name__}")
        return values

    def field(self, key: str) -> Any:
        """A field's value as it is stored; None where the file lacks it."""
        return self._header.fields.get(key)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, in torch's order."""
        return self._entry(name).shape

    def tensor(self, name: str) -> Tensor:
        """A tensor, dequantised to float32."""
        entry = self._entry(name)
        start = self._header.data_start + entry.offset
        size, dequantize = self._dequantize(entry)
        if start + size > len(self._data):
            raise self.error(f"the file is truncated: it ends within the tensor {name}")
        values = dequantize(self._data[start : start + size])
        return torch.from_numpy(np.array(values, dtype=np.float32)).reshape(entry.shape)

    def _value(self, key: str) -> Any:
        if not self.has(key):
            raise self.error(f"it has no field {key}")
        return self._header.fields[key]

    def _entry(self, name: str) -> TensorEntry:
        entry = self._header.tensors.get(name)
        if entry is None:
            raise self.error(f"it has no tensor {name}")
        return entry


def _checked(file: GgufFile, key: str, value: Any, kind: type[Scalar]) -> Scalar:
    """A field's value, which must be of the type asked for; an integer will do for a float."""
    if kind is float and type(value) is int:
        return kind(value)
    if type(value) is not kind:
        raise file.error(f"{key} is {str(value)[:60]!r}, not of type {kind.__name__}")
    return value


def open_gguf(name: str | Path) -> GgufFile | None:
    """The GGUF file that a model's name stands for, opened; None for every other model. Raises ModelLoadError."""
    path = gguf_file(name)
    return None if path is None else GgufFile(path)


def _dequantizer(path: Path) -> Any:
    """A function that gives a tensor's size in bytes and the function that turns those bytes into numbers."""
    try:
        import gguf
    except ImportError as error:
        raise ModelLoadError(
            f"{path}: reading GGUF files needs the gguf package: pip install 'trimtab[gguf]'"
        ) from error

    def prepare(entry: TensorEntry) -> Any:
        try:
            kind = gguf.GGMLQuantizationType(entry.type_id)
        except ValueError as error:
            raise ModelLoadError(f"{path}: {entry.name} has the unknown type {entry.type_id}") from error
        block, width = gguf.GGML_QUANT_SIZES[kind]
        if not entry.shape or entry.shape[-1] % block:
            raise ModelLoadError(f"{path}: the rows of {entry.name} are not whole blocks of {kind.name}")

        def dequantize(data: Any) -> Any:
            try:
                return gguf.dequantize(data, kind)
            except NotImplementedError as error:
                raise ModelLoadError(
                    f"{path}: {entry.name} is stored as {kind.name}, which the gguf package cannot read"
                ) from error

        return entry.elements // block * width, dequantize

    return prepare
