"""Batches by their numbers, as Keras asks for them."""

import random
from collections.abc import Callable, Iterator

import keras
import numpy as np


class IndexedBatches(keras.utils.PyDataset):
    """Batches of rows, put in another order in each epoch if asked for.

    Args:
        read: Gives the batch of some rows.
        rows: The rows of each batch.
        shuffled: `"samples"`, `"batches"` or `"nothing"`.
        prepare: Called with the batches of each epoch before its first.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], tuple],
        rows: list[np.ndarray],
        shuffled: str,
        prepare: Callable[[list[np.ndarray]], None] = lambda batches: None,
    ):
        super().__init__()
        self._read, self._rows = read, rows
        self._shuffled, self._prepare = shuffled, prepare
        self._start()

    @property
    def num_batches(self) -> int:
        """How many there are."""
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple:
        return self._read(self._rows[index])

    def on_epoch_end(self) -> None:
        """Keras's hook: another order for the next epoch."""
        self._start()

    def _start(self) -> None:
        if self._shuffled == "nothing":
            self._prepare(self._rows)
            return
        # As Keras's own shuffling: from Python's generator.
        draw = np.random.default_rng(random.getrandbits(64))
        if self._shuffled == "samples":
            sizes = np.cumsum([len(rows) for rows in self._rows])[:-1]
            every = draw.permutation(np.concatenate(self._rows))
            self._rows = np.split(every, sizes)
        else:
            order = draw.permutation(len(self._rows))
            self._rows = [self._rows[i] for i in order]
        self._prepare(self._rows)


class OnePassBatches(keras.utils.PyDataset):
    """Batches that come one after the other, once, by their numbers.

    Keras may look at the first ones before it starts, and begin another pass
    when it is through.

    Args:
        found: The batches.
        count: How many there are.
        again: Gives the same batches by their numbers, once all have come.
    """

    # What Keras looks at, at most.
    _KEPT = 2

    def __init__(
        self,
        found: Iterator[tuple],
        count: int,
        again: Callable[[], keras.utils.PyDataset],
    ):
        super().__init__()
        self._found, self._count, self._again = found, count, again
        self._known: keras.utils.PyDataset | None = None
        self._first: list[tuple] = []
        self._next = 0

    @property
    def num_batches(self) -> int:
        """How many there are."""
        return self._count

    def __getitem__(self, index: int) -> tuple:
        if index < len(self._first):
            return self._first[index]
        if index < self._next:
            self._known = self._known or self._again()
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
            # What comes behind the last batch closes the record.
            next(self._found, None)
        return batch
