"""Combines taps, adapters and entries to cascades that could be built.

Tested by `tests/searching/test_search.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.injection.arguments import Injection
from keras_cascade.planning.arguments import Arguments
from keras_cascade.planning.plan import make_plan
from keras_cascade.ranking.candidates import Networks

# The name of an entry that is the input of the downstream.
INPUT = "input"


@dataclass(frozen=True)
class Combination:
    """Taps, adapters and the place where features enter.

    Attributes:
        taps: The name of the taps.
        adapters: The name of the adapters.
        entry: The name of the entry, or of the fusion.
        arguments: The arguments of `build_cascade`.
    """

    taps: str
    adapters: str
    entry: str
    arguments: Arguments

    @property
    def label(self) -> str:
        """The three names, by which the combination is found again."""
        return f"{self.taps} | {self.adapters} | {self.entry}"


def combine(
    base: Arguments,
    taps: object,
    adapters: object,
    entries: object,
) -> tuple[list[Combination], dict[str, str]]:
    """Returns the combinations, and why others cannot be built.

    Raises:
        ValueError: If none can be built, or there are no taps.
    """
    combinations: list[Combination] = []
    refused: dict[str, str] = {}
    for one in _all(base, taps, adapters, entries):
        try:
            make_plan(one.arguments)
        except (ValueError, TypeError) as error:
            refused[one.label] = str(error)
        else:
            combinations.append(one)
    if not combinations:
        label, reason = next(iter(refused.items()))
        raise ValueError(
            f"None of {len(refused)} combinations of taps, adapters and "
            f"entries can be built. The first, {label}: {reason}"
        )
    return combinations, refused


def _all(
    base: Arguments, taps: object, adapters: object, entries: object
) -> Iterator[Combination]:
    """Yields every combination."""
    choices = (
        _named("taps", _tap_choices(base, taps)),
        _named("adapters", adapters),
        _named("entries", entries),
    )
    for (tap, paths), (adapter, layers), (entry, place) in product(
        *(x.items() for x in choices)
    ):
        named = {f"tap{i}": path for i, path in enumerate(_paths(paths))}
        given = replace(base, taps=named, adapters=layers)
        yield Combination(tap, adapter, entry, _entered(given, named, place))


def _tap_choices(base: Arguments, taps: object) -> object:
    """Returns the taps to choose from; a pattern selects them one by one."""
    if not isinstance(taps, str):
        return taps
    networks = Networks.of(base.upstream)
    return [tap.path for tap in networks.find(taps)]


def _paths(taps: object) -> list[str]:
    paths = [taps] if isinstance(taps, str) else taps
    if not isinstance(paths, list | tuple) or not paths:
        raise ValueError(
            "taps: each choice is a path, or a list of paths that are used "
            f"together; received {taps!r}. A pattern, such as 'stages' or "
            "'block*', tries what it selects one by one."
        )
    return list(paths)


def _entered(
    given: Arguments, taps: Mapping[str, str], place: object
) -> Arguments:
    """Returns the arguments for features that enter at a place."""
    if place is None:
        return given
    if isinstance(place, str):
        place = Injection(place)
    if isinstance(place, Injection):
        return replace(given, inject=dict.fromkeys(taps, place))
    if isinstance(place, Mapping) and set(place) == {"fusion"}:
        return replace(given, fusion=place["fusion"])
    raise ValueError(
        "entries: each choice is None (the input of the downstream), a path "
        "in the downstream, an Injection, or {'fusion': ...}; received "
        f"{place!r}."
    )


def _named(argument: str, choices: object) -> dict[str, object]:
    """Returns choices by their names, which are texts of them in a list."""
    if isinstance(choices, Mapping):
        named = {str(name): choice for name, choice in choices.items()}
    elif isinstance(choices, list | tuple):
        named = {_text(choice): choice for choice in choices}
        if len(named) < len(choices):
            raise ValueError(
                f"{argument} has choices of the same name: "
                f"{listed(map(_text, choices))}. Name them: "
                f"{argument}={{'small': ..., 'large': ...}}."
            )
    else:
        raise ValueError(
            f"{argument} is a list of choices, or {{name: choice}}; received "
            f"{choices!r}."
        )
    if not named:
        raise ValueError(f"{argument}={choices!r} has no choice.")
    return named


def _text(choice: object) -> str:
    if choice is None:
        return INPUT
    if isinstance(choice, Injection):
        return f"{choice.path} ({choice.merge})"
    if isinstance(choice, keras.layers.Layer):
        return choice.name
    if isinstance(choice, Mapping):
        return ", ".join(f"{k} {_text(x)}" for k, x in choice.items())
    if isinstance(choice, Sequence) and not isinstance(choice, str):
        return " + ".join(map(_text, choice))
    return str(choice)
