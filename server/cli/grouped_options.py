"""Commands that receive their options in groups, so that options which several commands share are written once."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, get_type_hints


def grouped_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the signature that typer reads: each parameter that is a dataclass becomes its fields, in order.

    A field is written like a parameter of a typer command: `Annotated[type, typer.Option(...)] = default`. The command
    is called with instances of its dataclasses. Raises ValueError if two parameters or fields have the same name.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if dataclasses.is_dataclass(hint)}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name in groups:
            parameters += _field_parameters(groups[parameter.name])
        else:
            parameters.append(_keyword(parameter.name, hints[parameter.name], parameter.default))

    @wraps(command)
    def with_flat_options(**values: Any) -> None:
        grouped = {
            name: group(**{field.name: values.pop(field.name) for field in dataclasses.fields(group)})
            for name, group in groups.items()
        }
        command(**values, **grouped)

    # typer reads both: names and defaults from the signature, types from the annotations.
    with_flat_options.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    with_flat_options.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return with_flat_options


def _field_parameters(group: Any) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        default = inspect.Parameter.empty if field.default is dataclasses.MISSING else field.default
        yield _keyword(field.name, hints[field.name], default)


def _keyword(name: str, hint: Any, default: Any) -> inspect.Parameter:
    # Only keyword-only parameters may lack a default after one that has it.
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)
