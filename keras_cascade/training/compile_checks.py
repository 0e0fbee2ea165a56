"""Checks the names that `compile` is given, before Keras looks for them.

Keras looks for losses and metrics at the first step, and says which name it
did not find, but not which there are.

Tested by `tests/behaviour/test_mistakes.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_cascade._reporting.messages import closest, listed

# Names of `compile` alone, for which Keras chooses a metric by the output.
_CHOSEN = ("accuracy", "acc", "crossentropy", "ce")
_MODULES: dict[str, Any] = {
    "optimizer": keras.optimizers,
    "loss": keras.losses,
    "metrics": keras.metrics,
    "weighted_metrics": keras.metrics,
}


def check_compile_arguments(
    outputs: Sequence[str], **arguments: object
) -> None:
    """Raises a ValueError for names that Keras, or the cascade, does not have.

    Args:
        outputs: The names of the outputs if there are several, else empty.
        **arguments: Of `compile`: `optimizer`, `loss`, `metrics`,
            `weighted_metrics`.
    """
    for argument, value in arguments.items():
        for name in _names_in(value):
            _check_name(argument, name)
        if outputs and argument != "optimizer":
            _check_outputs(argument, value, outputs)


def _names_in(value: object) -> Iterator[str]:
    several = value
    if isinstance(value, Mapping):
        several = list(value.values())
    if isinstance(several, list | tuple):
        for one in several:
            yield from _names_in(one)
    elif isinstance(value, str):
        yield value


def _check_name(argument: str, name: str) -> None:
    module = _MODULES[argument]
    if module is keras.metrics and name in _CHOSEN:
        return
    try:
        module.get(name)
    except ValueError as error:
        possible = _possible(module)
        raise ValueError(
            f"{argument}: {module.__name__.replace('._tf_keras', '')} has "
            f"nothing called '{name}'.{closest(name, possible)}"
        ) from error


def _possible(module: Any) -> list[str]:
    """Returns the names of a module's functions and classes."""
    rest = ("get", "serialize", "deserialize")
    names = [x for x in vars(module) if not x.startswith("_") and x not in rest]
    names += _CHOSEN if module is keras.metrics else ()
    # The last of two names that differ in case alone is suggested.
    return sorted(names, key=str.islower)


def _check_outputs(
    argument: str, value: object, outputs: Sequence[str]
) -> None:
    if isinstance(value, Mapping):
        for name in value:
            if name not in outputs:
                raise ValueError(
                    f"{argument} names '{name}', which is no output of the "
                    f"cascade.{closest(str(name), outputs)} There are: "
                    f"{listed(outputs)}."
                )
        return
    if argument == "loss" or not isinstance(value, list | tuple):
        return
    if len(value) not in (0, len(outputs)):
        raise ValueError(
            f"{argument} is a list of {len(value)}, and the cascade has "
            f"{len(outputs)} outputs. Pass a dict, such as "
            f"{{'{outputs[0]}': {list(value)!r}}}; the outputs are "
            f"{listed(outputs)}."
        )
