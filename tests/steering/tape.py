"""Graph capture on any device: a tape of a pass's operations, which are repeated on the same tensors.

This does without a GPU what a CUDA graph does: Python runs once, addresses and host values stay as they were, and only
the contents of memory may change. Operations that a graph cannot capture are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from steering.device.execution import Execution

# Operations that read the device's values on the host, or make shapes of them.
READING = (
    "_local_scalar_dense",
    "item",
    "resolve_neg",  # called by `tolist`, and by nothing else here
    "is_nonzero",
    "nonzero",
    "masked_select",
    "_unique2",
    "equal",
)
# The operation that copies the host's values to the device.
WRITING = "lift_fresh"


class NotCapturableError(RuntimeError):
    """The pass runs an operation that no graph can capture."""


def reads_on_the_host(func: Any, args: tuple[Any, ...]) -> bool:
    """True for an operation that makes the host wait for a GPU."""
    name = _name(func)
    by_mask = name.startswith(("index.", "index_put", "_index_put")) and any(
        i is not None and i.dtype == torch.bool for i in args[1]
    )
    return by_mask or any(name == bad or name.startswith(bad + ".") for bad in READING)


def _name(func: Any) -> str:
    return str(func).removeprefix("aten.")


class HostReads(TorchDispatchMode):
    """Collects the names of the operations for which the host waits for the device."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if reads_on_the_host(func, args):
            self.names.append(_name(func))
        return func(*args, **(kwargs or {}))


class _Tape(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.calls: list[tuple[Any, tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if reads_on_the_host(func, args) or _name(func).startswith(WRITING):
            raise NotCapturableError(f"{_name(func)} cannot be captured")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_iter(tree) if isinstance(leaf, Tensor)]


def _storages(tensors: Sequence[Tensor]) -> set[int]:
    return {t.untyped_storage()._cdata for t in tensors if t.layout == torch.strided}


class TapeCapture:
    """Captures passes on tapes; counts the captures and the replays."""

    def __init__(self) -> None:
        self.captured = 0
        self.replayed = 0

    def __call__(self, run: Callable[[], Tensor]) -> Callable[[], Tensor]:
        tape = _Tape()
        with tape:
            result = run()
        self.captured += 1

        def replay() -> Tensor:
            self.replayed += 1
            for func, args, kwargs, outputs in tape.calls:
                inputs = _storages(_tensors((args, kwargs)))
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(outputs), _tensors(again), strict=True):
                    # The result of a view or an in-place operation is in its inputs' memory already.
                    if not _storages([old]) & inputs:
                        old.copy_(new)
            return result

        return replay


def like_a_gpu() -> Execution:
    """The execution of a GPU for tests on a CPU: captured passes and running ahead."""
    return Execution(TapeCapture(), TapeCapture(), runs_ahead=True)
