"""Checks the argument `inject`."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras

from keras_cascade._reporting.messages import closest, listed

MERGES = ("add", "multiply", "film", "concat", "replace")


@keras.saving.register_keras_serializable(package="keras_cascade")
@dataclass(frozen=True)
class Injection:
    """The layer of the downstream that features enter, and the merge.

    Args:
        path: The layer of the downstream whose output is merged with them;
            `inner/layer` inside a nested network.
        merge: `"add"`, `"multiply"` (by 1 + gate), `"film"` (a scale and a
            shift a channel; Perez et al. 2018), `"concat"` (and a projection
            back to the layer's width), or `"replace"`: they take the output's
            place, and layers that only that output needed are not in the
            cascade. Defaults to `"add"`.
        zero_init: Whether the cascade starts as the downstream alone: the
            merge's weights are zero, and training moves them. `"replace"`
            has none. Defaults to `True`.

    Raises:
        ValueError: If the path is no text or the merge is none of these.

    Example:
    >>> Injection("conv3_block2_out", merge="film")
    Injection(path='conv3_block2_out', merge='film', zero_init=True)
    """

    path: str
    merge: str = "add"
    zero_init: bool = True

    def __post_init__(self):
        if not isinstance(self.path, str):
            raise ValueError(
                "An Injection goes to a path in the downstream, as text; "
                f"received {self.path!r}."
            )
        if self.merge not in MERGES:
            raise ValueError(
                f"Injection('{self.path}', merge={self.merge!r}): there is no "
                f"such merge.{closest(str(self.merge), MERGES)} Possible: "
                f"{listed(MERGES)}."
            )

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Injection":
        """Returns the injection of these arguments."""
        return cls(**config)


def normalise_injections(
    inject: Mapping[str, Any] | None, streams: Sequence[str]
) -> dict[str, tuple[Injection, ...]]:
    """Returns the injections of each tap and extra input.

    Args:
        inject: `{tap or extra input: path, Injection, or a list of these}`.
        streams: The names of the taps and extra inputs.

    Raises:
        ValueError: If a key is no tap or extra input, or a list is empty.
        TypeError: If a value is neither a path nor an `Injection`.
    """
    if inject is None:
        return {}
    if not isinstance(inject, Mapping):
        raise TypeError(
            "inject must be a mapping {tap or extra input: path in the "
            f"downstream, or Injection}}; received {inject!r}."
        )
    for name in inject:
        if name not in streams:
            raise ValueError(
                f"inject names '{name}', which is no tap and no extra input."
                f"{closest(str(name), streams)} There are: {listed(streams)}."
            )
    return {name: _injections(name, value) for name, value in inject.items()}


def _injections(name: str, value: object) -> tuple[Injection, ...]:
    values = value if isinstance(value, list | tuple) else [value]
    if not values:
        raise ValueError(f"inject['{name}'] lists nothing; leave it out.")
    found = []
    for one in values:
        if not isinstance(one, str | Injection):
            raise TypeError(
                f"inject['{name}'] must be a path in the downstream, an "
                f"Injection, or a list of these; received {one!r}."
            )
        found.append(Injection(one) if isinstance(one, str) else one)
    return tuple(found)
