"""The interface of an adapter kind: its settings, its models, and the shift that it makes of their logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from steering.adapters.shift import Shift


class ShiftRule(Protocol):
    """Turns the logits of an adapter's models into its shift.

    `logits` holds one float32 `[rows, V_steering]` for each model, in the order of `AdapterKind.folders`.
    """

    @property
    def alpha_range(self) -> tuple[float, float]:
        """The least and the largest alpha that make sense. 0 lies in it, and is the base exactly."""
        ...

    def shift(self, logits: Sequence[Tensor]) -> Tensor:
        """The shift over the steering vocabulary, `[rows, V_steering]`. A row may have any constant offset."""
        ...

    def log_ratio(self, logits: Sequence[Tensor]) -> Tensor:
        """The same shift normalised so that 0 means "no opinion". It adds up along the tokens of a text."""
        ...

    def weigh(self, shift: Shift, base: Tensor, alphas: Tensor) -> Shift:
        """The amount to add to the base's scores, given the shift in the base's vocabulary.

        base: scores float32 `[rows, V_base]`, log probabilities up to a constant per row. alphas: `[rows]`, none of
        them 0. Most kinds return `shift.times(alphas)`.
        """
        ...


class AdapterKind(Protocol):
    """One kind of adapter. A kind is one file and one row of `steering.adapters.kinds.KINDS`."""

    @property
    def defaults(self) -> Mapping[str, Any]:
        """The kind's own fields of `adapter.json` with their defaults. The loader adds the fields of every kind."""
        ...

    def folders(self, settings: Mapping[str, Any]) -> tuple[Any, ...]:
        """The folders of its models below the adapter's folder, as the settings name them."""
        ...

    def rule(self, settings: Mapping[str, Any]) -> ShiftRule:
        """The rule for an adapter of this kind. Raises AdapterLoadError naming a field that has a wrong value."""
        ...
