"""Splits the data of a search into a part to train on and one to score.

Tested by `tests/searching/test_search.py`.
"""

from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import keras
import numpy as np


@dataclass(frozen=True, eq=False)
class Samples:
    """The data of a search.

    Attributes:
        train: The arguments `x`, or `x` and `y`, of `fit`.
        validation: Those of `evaluate`.
    """

    train: tuple[Any, ...]
    validation: tuple[Any, ...]

    @classmethod
    def of(
        cls, data: object, validation_data: object, split: float, seed: int
    ) -> "Samples":
        """Returns the two parts.

        Raises:
            ValueError: If the data are no arrays and validation data are
                missing, or either part would be empty.
        """
        given = _as_arguments(data, "data")
        if validation_data is not None:
            return cls(given, _as_arguments(validation_data, "validation_data"))
        if len(given) != 2:
            raise ValueError(
                "data: only arrays, (x, y), can be split; received "
                f"{type(data).__name__}. Pass validation_data= as well."
            )
        if not 0.0 < split < 1.0:
            raise ValueError(
                "validation_split is a share between 0 and 1; received "
                f"{split!r}."
            )
        count = _rows(given)
        held = round(count * split)
        if not 0 < held < count:
            raise ValueError(
                f"validation_split={split} of {count} samples leaves nothing "
                "to train on, or to score. Pass more samples, or "
                "validation_data=."
            )
        order = np.random.default_rng(seed).permutation(count)
        return cls(_taken(given, order[held:]), _taken(given, order[:held]))

    def describe(self) -> dict[str, object]:
        """Returns the shapes of the data, and a hash of the labels."""
        found: dict[str, object] = {}
        for name in ("train", "validation"):
            arrays = keras.tree.flatten(getattr(self, name))
            shapes = [list(getattr(x, "shape", ())) for x in arrays]
            last = arrays[-1]
            labels = np.asarray(last) if shapes[-1] else np.zeros(0)
            found[name] = [*shapes, blake2b(_bytes(labels)).hexdigest()[:16]]
        return found


def _bytes(labels: np.ndarray) -> bytes:
    if labels.dtype == object:
        return repr(labels.tolist()).encode()
    return np.ascontiguousarray(labels).tobytes()


def _as_arguments(data: object, name: str) -> tuple[Any, ...]:
    """Returns `(x, y)` as arrays, or a data set as it is."""
    if isinstance(data, tuple) and len(data) == 2:
        x, y = data
        if y is None:
            raise ValueError(f"{name} has no labels: pass {name}=(x, y).")
        arrays: Any = keras.tree.map_structure(np.asarray, (x, y))
        rows = {len(one) for one in keras.tree.flatten(arrays)}
        if len(rows) != 1:
            raise ValueError(
                f"{name}: x and y have different numbers of rows: "
                f"{', '.join(map(str, sorted(rows)))}."
            )
        return arrays
    if data is None or isinstance(data, tuple | list | np.ndarray):
        raise ValueError(
            f"{name} is (x, y), or a data set that yields them; received "
            f"{type(data).__name__}."
        )
    return (data,)


def _rows(arrays: tuple[Any, ...]) -> int:
    return len(keras.tree.flatten(arrays)[0])


def _taken(arrays: tuple[Any, ...], rows: np.ndarray) -> tuple[Any, ...]:
    taken: Any = keras.tree.map_structure(lambda x: x[rows], arrays)
    return taken
