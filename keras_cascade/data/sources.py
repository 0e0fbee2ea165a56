"""Opens the user's data, of whatever kind, as arrays or as batches.

No other module looks at the type of the data.
"""

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_cascade.data.arrays import (
    ACCEPTED,
    count_rows,
    describe,
    is_array,
    map_arrays,
    refuse_sparse,
    to_numpy,
)
from keras_cascade.data.repetition import Looks, order_of

# Inputs, labels and sample weights of some samples, each a structure of
# arrays; None where there are no labels or weights.
Batch = tuple[Any, Any, Any]


@dataclass(frozen=True, eq=False)
class Arrays:
    """Samples in arrays, which can be read at any row.

    Attributes:
        x: The inputs, a structure of arrays.
        y: The labels, a structure of arrays, or None.
        sample_weight: The sample weights, a structure of arrays, or None.
    """

    x: Any
    y: Any = None
    sample_weight: Any = None

    @cached_property
    def rows(self) -> int:
        """The number of samples.

        Raises:
            TypeError: One of the leaves is no array.
            ValueError: The arrays are empty, or of unequal lengths.
        """
        parts = (self.x, self.y, self.sample_weight)
        return count_rows([part for part in parts if part is not None])

    def take(self, rows: np.ndarray | slice) -> Batch:
        """Returns the samples of a slice or, of NumPy's arrays, of numbers."""
        return self._map(lambda leaf: to_numpy(leaf[rows]))

    def to_numpy(self) -> "Arrays":
        """Returns the samples in NumPy arrays."""
        return Arrays(*self._map(to_numpy))

    def split(self, share: float) -> tuple["Arrays", "Arrays"]:
        """Splits a share of the rows off, as Keras's `validation_split`.

        Raises:
            ValueError: One side would have no rows.
        """
        at = int(np.floor(self.rows * (1.0 - share)))
        if at in (0, self.rows):
            raise ValueError(
                f"validation_split={share} of {self.rows} samples leaves "
                "nothing to train on, or nothing to validate on."
            )
        first, second = self.take(slice(at)), self.take(slice(at, None))
        return Arrays(*first), Arrays(*second)

    def _map(self, change: Callable[[Any], np.ndarray]) -> Batch:
        parts = (self.x, self.y, self.sample_weight)
        x, y, weights = (map_arrays(change, part) for part in parts)
        return x, y, weights


class Batches:
    """Samples that come in batches, in an order of their own.

    Args:
        data: A PyDataset, or another iterable of batches.

    Attributes:
        kind: The type of the data, for messages.
        length: The number of batches of a pass, where it is known beforehand.
        endless: Whether it is known that a pass never ends.
        reiterable: Whether there is more than one pass.
        order: How they come in each epoch.
    """

    def __init__(self, data: Any):
        kind = type(data)
        module = kind.__module__.partition(".")[0]
        nameless = module in ("builtins", "__main__")
        name = kind.__qualname__
        self.kind = name if nameless else f"{module} {name}"
        self.length, self.endless = _length_of(data)
        self.reiterable = not isinstance(data, Iterator)
        self.order = order_of(data)
        self._data = data

    @cached_property
    def looks(self) -> Looks | None:
        """The looks at its entries, if it reads them by number."""
        index = self.order.index
        return None if index is None else Looks(index)

    @cached_property
    def not_repeatable_because(self) -> str | None:
        """Why another pass may give other samples, or None."""
        reason = self.order.varies_because
        return self.looks.why_not() if self.looks else reason

    def read(self, parts: int = 3) -> Iterator[Batch]:
        """Yields the batches of one pass.

        Args:
            parts: How many of inputs, labels and sample weights to read; the
                others are None, and may be of any kind.

        Raises:
            TypeError: A batch has something other than arrays.
            ValueError: There is no batch.
        """
        batch = None
        for batch in self._pass():
            yield as_batch(batch, parts)
        if batch is None:
            raise ValueError(
                "The data is empty: it gave no batch. A generator that was "
                "read before gives nothing; make a new one."
            )

    def entry(self, number: int) -> Batch:
        """Returns a batch by its number; for data that is read so."""
        return as_batch(self._data[number], 3)

    def _pass(self) -> Iterator[object]:
        if not isinstance(self._data, keras.utils.PyDataset):
            return iter(self._data)
        # A PyDataset has no iterator, and an index without end.
        numbers = itertools.count() if self.endless else range(self.length or 0)
        return map(self._data.__getitem__, numbers)


def as_batch(given: object, parts: int = 3) -> Batch:
    """Returns a batch, as data gives it, in its parts."""
    found = keras.utils.unpack_x_y_sample_weight(given)
    x, y, weights = (*found[:parts], None, None)[:3]
    x = map_arrays(to_numpy, x)
    return x, map_arrays(to_numpy, y), map_arrays(to_numpy, weights)


def open_data(data: object, may_be_endless: bool = False) -> Arrays | Batches:
    """Returns data as arrays or as batches, by its type.

    Args:
        data: array, structure of arrays, or batches. A tuple is `(x,)`,
            `(x, y)` or `(x, y, sample_weight)`, and a list or dict is one `x`
            of several inputs. Arrays are checked when they are read.
        may_be_endless: Whether batches without end are accepted. Defaults to
            `False`.

    Raises:
        TypeError: The data is of another type, or sparse.
        ValueError: The batches never end, labels stand beside batches, or a
            tuple has more elements.
    """
    refuse_sparse(data)
    _refuse_ambiguous(data)
    x, *others = data if isinstance(data, tuple) else (data,)
    if isinstance(x, (tuple, list, dict)) or is_array(x):
        return Arrays(x, *others)
    source = _open_batches(x)
    if any(other is not None for other in others):
        raise ValueError(
            f"A {source.kind} gives labels and sample weights in its batches; "
            "received y or sample_weight beside it."
        )
    if source.endless and not may_be_endless:
        raise ValueError(
            f"The {source.kind} never ends. One pass needs an end: limit it to "
            "the batches to learn from (`dataset.take(100)`)."
        )
    return source


def is_shuffled_by_fit(data: object) -> bool:
    """Returns whether `fit(shuffle=True)` changes the order of such data.

    It does so for arrays, data frames and PyDatasets. Other data have an order
    of their own, and Keras warns of its own default, `shuffle=True`.
    """
    kinds = (keras.utils.PyDataset, tuple, list, dict)
    return isinstance(data, kinds) or hasattr(data, "shape")


def _refuse_ambiguous(data: object) -> None:
    if isinstance(data, tuple) and not 1 <= len(data) <= 3:
        raise ValueError(
            "A tuple is (x, y) or (x, y, sample_weight), received "
            f"{len(data)} elements. Several inputs are a list or a dict."
        )
    if isinstance(data, list) and any(isinstance(x, tuple) for x in data):
        raise TypeError(
            "A list is several inputs, each an array; received a list of "
            "tuples. If these are batches, pass `iter(batches)` for one "
            "pass, or a keras.utils.PyDataset."
        )


def _open_batches(data: object) -> Batches:
    # KerasTensor has an `__iter__`, which only raises an error.
    if isinstance(data, (str, bytes, keras.KerasTensor)) or not isinstance(
        data, (Iterable, keras.utils.PyDataset)
    ):
        hint = " Call the function, and pass what it returns." * callable(data)
        raise TypeError(f"Data is {ACCEPTED}. Received {describe(data)}.{hint}")
    return Batches(data)


def _length_of(data: Any) -> tuple[int | None, bool]:
    """Returns the number of batches, if known, and whether they never end."""
    tf = sys.modules.get("tensorflow")
    if isinstance(data, keras.utils.PyDataset):
        if data.num_batches is None:
            return None, True
        length, endless = int(data.num_batches), False
    elif tf is not None and isinstance(data, tf.data.Dataset):
        length = int(data.cardinality())
        endless = length == tf.data.INFINITE_CARDINALITY
    else:
        try:
            length = len(data)
        except TypeError:  # no length, or one that is unknown beforehand
            return None, False
        # The length of a grain data set that repeats without end.
        endless = length == sys.maxsize
    return None if endless or length < 0 else length, endless
