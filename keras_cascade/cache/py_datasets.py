"""Batches by number, as Keras asks a PyDataset for them.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

import random
import threading
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

# Inputs, labels and sample weights, without those at the end that are missing.
ModelBatch = tuple[object, ...]


class IndexedBatches(keras.utils.PyDataset):
    """Batches of rows, whose order is drawn for each epoch.

    The order is drawn when the first batch of an epoch is read, as a live
    training draws it.

    Args:
        read: Returns the batch of some rows.
        count: The number of batches.
        draw: Returns the rows of each batch of an epoch.
        prepare: Called with the rows of all batches of each epoch before its
            first.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], ModelBatch],
        count: int,
        draw: Callable[[], Sequence[np.ndarray]],
        prepare: Callable[[Sequence[np.ndarray]], None] = lambda batches: None,
    ):
        super().__init__()
        self._read, self._count = read, count
        self._draw, self._prepare = draw, prepare
        self._rows: Sequence[np.ndarray] | None = None
        self._lock = threading.Lock()

    @property
    def num_batches(self) -> int:
        """The number of batches."""
        return self._count

    def __getitem__(self, index: int) -> ModelBatch:
        return self._read(self._drawn()[index])

    def on_epoch_end(self) -> None:
        """Keras's hook: another order for the next epoch."""
        self._rows = None

    def _drawn(self) -> Sequence[np.ndarray]:
        # TensorFlow may still read for an epoch that has ended.
        with self._lock:
            if self._rows is None:
                rows = self._draw()
                self._prepare(rows)
                self._rows = rows
            return self._rows


class EachOnce(keras.utils.PyDataset):
    """Batches that are made when they are first read, in any order.

    Args:
        make: Returns the batch of a number.
        count: The number of batches.
        completed: Called once when all batches have been made.
        again: Returns a batch when all have been made.
    """

    def __init__(
        self,
        make: Callable[[int], ModelBatch],
        count: int,
        completed: Callable[[], None],
        again: Callable[[int], ModelBatch],
    ):
        super().__init__()
        self._make, self._count = make, count
        self._completed, self._again = completed, again
        self._made: set[int] = set()

    @property
    def num_batches(self) -> int:
        """The number of batches."""
        return self._count

    def __getitem__(self, index: int) -> ModelBatch:
        if len(self._made) == self._count:
            return self._again(index)
        batch = self._make(index)
        self._made.add(index)
        if len(self._made) == self._count:
            self._completed()
        return batch


class OnePassBatches(keras.utils.PyDataset):
    """Batches that come one after the other, once, by their numbers.

    When all have come, `again` returns the same batches for further passes.
    """

    # TensorFlow reads two batches before it starts, and the first ones again
    # when an epoch has ended.
    _KEPT = 2

    def __init__(
        self,
        found: Iterator[ModelBatch],
        count: int,
        again: Callable[[], IndexedBatches],
    ):
        super().__init__()
        self._found, self._count, self._again = found, count, again
        self._known: IndexedBatches | None = None
        self._first: list[ModelBatch] = []
        self._next = 0

    @property
    def num_batches(self) -> int:
        """The number of batches."""
        return self._count

    def __getitem__(self, index: int) -> ModelBatch:
        if index < len(self._first):
            return self._first[index]
        if index < self._next:
            if self._known is None:
                self._known = self._again()
            return self._known[index]
        batch = next(self._found, None)
        if batch is None:
            raise ValueError(
                f"The data ended after {self._next} batches of "
                f"{self._count}: its length is not right."
            )
        self._next += 1
        if len(self._first) < self._KEPT:
            self._first.append(batch)
        if self._next == self._count:
            # The generator completes its record after the last batch.
            next(self._found, None)
        return batch


def shuffle_rows(batches: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Returns the rows of all batches shuffled, in batches of equal sizes."""
    # Keras's own shuffling draws from Python's generator as well.
    draw = np.random.default_rng(random.getrandbits(64))
    ends = np.cumsum([len(rows) for rows in batches])[:-1]
    return np.split(draw.permutation(np.concatenate(batches)), ends)
