"""Defines the arguments of `build_cascade` as one object.

Tested by `tests/planning/test_arguments.py`.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import keras

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.taps import Taps
from keras_cascade.training.lora import LoRA
from keras_cascade.training.retention import Retention

Network = keras.Model | str | Path
Function = TypeVar("Function", bound=Callable)


# Without `eq`: arrays and layers among the values have no truth of equality.
@dataclass(frozen=True, eq=False, kw_only=True)
class Arguments:
    """The arguments of `build_cascade`, as the user gave them.

    `build_cascade` says what each means. What is `object` here is checked by
    the part of `planning` that reads it.
    """

    upstream: Network | Mapping[str, Network]
    downstream: Network | None = None
    taps: Taps = None
    adapters: object = "auto"
    fusion: object = "concat"
    inject: Mapping[str, Any] | None = None
    inputs: Mapping[str, Any] | None = None
    extra_inputs: Mapping[str, Any] | None = None
    downstream_input: str | None = None
    head: object = None
    preprocess: object = "auto"
    trainable: bool | Mapping[str, bool | LoRA] | None = None
    learning_rates: Mapping[str, Any] | None = None
    retention: Mapping[str, Retention] | None = None
    optimizer: object = "adam"
    loss: object = None
    metrics: object = None
    copy: bool = True
    name: str = "cascade"

    @property
    def networks(self) -> dict[str, Network]:
        """The networks by the names of their blocks.

        Raises:
            ValueError: If `upstream` is an empty mapping.
        """
        upstream: Any = self.upstream
        several = isinstance(upstream, Mapping)
        networks = dict(upstream) if several else {"upstream": upstream}
        if not networks:
            raise ValueError("upstream={} names no network.")
        if self.downstream is not None:
            networks["downstream"] = self.downstream
        return networks


# The fields as parameters, for signatures.
_PARAMETERS = {
    field.name: inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty
        if field.default is MISSING
        else field.default,
        annotation=field.type,
    )
    for field in fields(Arguments)
}


class _Unchanged:
    """The default of the arguments of `rebuild`, as its signature shows it."""

    def __repr__(self) -> str:
        return "unchanged"


def takes_arguments(function: Function) -> Function:
    """Shows the arguments of `build_cascade` in place of `**arguments`."""
    return _with_signature(function, _PARAMETERS)


def takes_changes(function: Function) -> Function:
    """Shows them in place of `**changes`, with a default of "unchanged"."""
    unchanged = {
        name: parameter.replace(default=_Unchanged())
        for name, parameter in _PARAMETERS.items()
    }
    return _with_signature(function, unchanged)


def check_names(names: Mapping[str, object], function: str) -> None:
    """Raises a TypeError for an argument that `build_cascade` does not have.

    `function` is the function that took the arguments, for the error.
    """
    for name in names:
        if name not in _PARAMETERS:
            raise TypeError(
                f"{function}() has no argument '{name}'."
                f"{closest(name, _PARAMETERS)} Possible: "
                f"{listed(_PARAMETERS)}."
            )


def _with_signature(
    function: Function, parameters: Mapping[str, inspect.Parameter]
) -> Function:
    """Replaces `**name` by parameters, where `help` and completion look."""
    signature = inspect.signature(function)
    own = dict(signature.parameters)
    rest = next(n for n, p in own.items() if p.kind is p.VAR_KEYWORD)
    del own[rest]
    more = [p for name, p in parameters.items() if name not in own]
    function.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[*own.values(), *more]
    )
    return function
