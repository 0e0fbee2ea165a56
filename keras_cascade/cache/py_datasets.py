"""Batches by number, as Keras asks a PyDataset for them.

Tested by `tests/cache/test_kinds_of_data.py`.
"""

import random
from collections.abc import Callable, Iterator, Sequence

import keras
import numpy as np

# Inputs, labels and sample weights, without those at the end that are missing.
ModelBatch = tuple[object, ...]


class IndexedBatches(keras.utils.PyDataset):
    """Batches of rows, put in another order in each epoch if asked for.

    Args:
        read: Returns the batch of some rows.
        rows: The rows of each batch.
        shuffled: `"samples"`, `"batches"` or `"nothing"`.
        prepare: Called with the rows of all batches of each epoch before its
            first.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], ModelBatch],
        rows: Sequence[np.ndarray],
        shuffled: str,
        prepare: Callable[[Sequence[np.ndarray]], None] = lambda batches: None,
    ):
        super().__init__()
        self._read, self._rows = read, rows
        self._shuffled, self._prepare = shuffled, prepare
        self._start()

    @property
    def num_batches(self) -> int:
        """The number of batches."""
        return len(self._rows)

    def __getitem__(self, index: int) -> ModelBatch:
        return self._read(self._rows[index])

    def on_epoch_end(self) -> None:
        """Keras's hook: another order for the next epoch."""
        self._start()

    def _start(self) -> None:
        if self._shuffled != "nothing":
            self._rows = self._shuffle()
        self._prepare(self._rows)

    def _shuffle(self) -> Sequence[np.ndarray]:
        # Keras's own shuffling draws from Python's generator as well.
        draw = np.random.default_rng(random.getrandbits(64))
        if self._shuffled == "batches":
            return [self._rows[i] for i in draw.permutation(len(self._rows))]
        # Batches keep their sizes, as in Keras's shuffling of arrays.
        ends = np.cumsum([len(rows) for rows in self._rows])[:-1]
        return np.split(draw.permutation(np.concatenate(self._rows)), ends)


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
